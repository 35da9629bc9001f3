"""How an engine ended, in one sentence with the reason that it gave itself."""

from __future__ import annotations

import resource
import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from gpustack.nursery.group import ExitStatus
from gpustack.worker.engine_exit import describe_exit
from tests.child import ROOT, environment
from tests.models import make_tiny_llm
from tests.needs import requires_module

FAILED = ExitStatus(code=1, signal=None)
UNKNOWN = ExitStatus(code=None, signal=None)


@pytest.fixture
def log(tmp_path: Path) -> Path:
    return tmp_path / "a.log"


@pytest.mark.parametrize(
    ("how", "ready", "sentence"),
    [
        (FAILED, True, "The engine exited with code 1; its log ends: bye"),
        (FAILED, False, "The engine exited with code 1 before it was ready: CUDA error: out of memory"),
        (ExitStatus(code=None, signal=11), True, "The engine was ended by SIGSEGV; its log ends: bye"),
        (
            ExitStatus(code=None, signal=9),
            True,
            "The engine was ended by SIGKILL, which the kernel sends when memory runs out; its log ends: bye",
        ),
        (ExitStatus(code=None, signal=200), True, "The engine was ended by signal 200; its log ends: bye"),
    ],
)
def test_each_way_to_end(how: ExitStatus, ready: bool, sentence: str, log: Path) -> None:
    log.write_text(f"loading\n{'' if ready else 'CUDA error: out of memory'}\nbye\n\n")
    assert describe_exit(how, log, ready=ready) == sentence


@pytest.mark.parametrize("content", [None, "", "\n \n"])
def test_of_an_engine_with_an_empty_log_the_sentence_says_so(content: str | None, log: Path) -> None:
    if content is not None:
        log.write_text(content)
    how = ExitStatus(code=3, signal=None)
    assert describe_exit(how, log, ready=True) == "The engine exited with code 3; its log is empty"


def test_the_quoted_end_of_a_log_is_short_and_plain(log: Path) -> None:
    log.write_bytes(b"x" * 300_000 + b"\n\x1b[31mred\x1b[0m \xff\x9b " + b"y" * 1000 + b"\n \n")
    words = describe_exit(FAILED, log, ready=True).partition("its log ends: ")[2]
    assert words.startswith("red ")
    assert len(words) == 300 and words.isprintable()


@pytest.mark.parametrize(
    ("written", "ready", "reason"),
    [
        (
            "0.00.100.000 I srv  init: loading model\n"
            "0.00.100.001 E llama_model_load: error loading model: unknown model architecture: 'new'\n"
            "0.00.100.002 E srv  load_model: failed to load model, '/m/new.gguf'\n",
            False,
            "unknown model architecture: 'new'",
        ),
        (  # versions without levels
            "llama_model_load: error loading model: unknown model architecture: 'new'\n"
            "llama_model_load_from_file_impl: failed to load model\n"
            "srv    operator(): operator(): cleaning up before exit...\n"
            "main: exiting due to model loading error\n",
            False,
            "unknown model architecture: 'new'",
        ),
        (  # an error that did not matter stands before the one that did
            "0.00.000.001 E ggml_backend_load: failed to load libggml-other.so\n"
            "0.00.000.002 I srv  init: loading model\n"
            "0.00.000.003 E srv  start: couldn't bind HTTP server socket, hostname: 127.0.0.1, port: 1\n"
            "0.00.000.004 I srv  operator(): cleaning up before exit...\n"
            "0.00.000.005 E srv  init: exiting due to HTTP server error\n",
            False,
            "srv start: couldn't bind HTTP server socket, hostname: 127.0.0.1, port: 1",
        ),
        (
            "(EngineCore_0 pid=1) ERROR 11-29 [core.py:700] Traceback (most recent call last):\n"
            "(EngineCore_0 pid=1) ERROR 11-29 [core.py:700] ValueError: 14 GiB KV cache is needed\n"
            "Traceback (most recent call last):\n  File main.py\n"
            "RuntimeError: Engine core initialization failed. See root cause above.\n",
            False,
            "ValueError: 14 GiB KV cache is needed",
        ),
        ("terminate called after throwing an instance of 'E'\n  what():  no room\n", False, "no room"),
        (
            "serve: error: unrecognized arguments: --foo\n",
            False,
            "serve: error: unrecognized arguments: --foo",
        ),
        ("loading\n/bin/sh: 1: nope: not found\n", False, "/bin/sh: 1: nope: not found"),
        (
            "1.00.000.000 E srv  send_error: the request exceeds the context\n"
            "/src/ggml.c:1: GGML_ASSERT(a == b) failed\n#0 0x1 in abort ()\n#1 0x2 in _start ()\n",
            True,
            "/src/ggml.c:1: GGML_ASSERT(a == b) failed",
        ),
    ],
)
def test_the_cause_is_told_rather_than_what_follows_from_it(
    written: str, ready: bool, reason: str, log: Path
) -> None:
    log.write_text(written)
    when = "" if ready else " before it was ready"
    assert describe_exit(FAILED, log, ready=ready) == f"The engine exited with code 1{when}: {reason}"


def test_what_a_request_got_wrong_is_not_why_an_adopted_engine_ended(log: Path) -> None:
    log.write_text("1.00.000.000 E srv  send_error: too long\n1.00.000.001 I slot release: id 2\n")
    assert describe_exit(UNKNOWN, log, ready=True) == (
        "The engine ended; an earlier daemon had started it, so its exit code is not known"
    )
    log.write_text("CUDA error: an illegal memory access was encountered\nslot release\n")
    assert "CUDA error: an illegal memory access" in describe_exit(UNKNOWN, log, ready=True)


def _cut(model: Path) -> None:
    model.write_bytes(model.read_bytes()[: model.stat().st_size // 2])


def _cut_in_header(model: Path) -> None:
    model.write_bytes(model.read_bytes()[:2000])


def _page(model: Path) -> None:
    model.write_text("<!DOCTYPE html><html>No.</html>")


def _other_architecture(model: Path) -> None:
    model.write_bytes(model.read_bytes().replace(b"llama", b"lluma"))


def _lacks_a_tensor(model: Path) -> None:
    model.write_bytes(model.read_bytes().replace(b"blk.1.attn_q.weight", b"blk.1.attn_z.weight"))


def _whole(model: Path) -> None:
    pass


@pytest.mark.parametrize(
    ("spoil", "flags", "reason"),
    [
        (_cut, (), "tensor '{any}' data is not within the file bounds, model is corrupted or incomplete"),
        (_cut_in_header, (), "failed to read key-value pairs ({model})"),
        (_page, (), "invalid magic characters: '<!DO', expected 'GGUF' ({model})"),
        (_other_architecture, (), "unknown model architecture: 'lluma'"),
        (_lacks_a_tensor, (), "tensor 'blk.1.attn_q.weight' not found"),
        (_whole, ("--port", "{port}"), "couldn't bind HTTP server socket, hostname: 127.0.0.1, port: {port}"),
        (_whole, ("--ctx-sise", "1"), "unknown argument '--ctx-sise'; did you mean --ctx-size?"),
        (_whole, ("-ctv", "q8_0", "-fa", "off"), "quantized V cache requires flash_attn to be enabled"),
        (_whole, ("--chat-template", "{% if x %}"), "Unexpected token type"),
        (_whole, ("--lora", "nowhere.gguf"), "failed to open 'nowhere.gguf': No such file or directory"),
        (_whole, ("--ctx-size", "2000000"), "insufficient memory (attempted to allocate"),
        (
            _whole,
            ("--mmproj", "{model}"),
            "Failed to load CLIP model from {model}. It was given the projector {model} beside the model: backend "
            "parameter --no-mmproj leaves it out, --mmproj names another",
        ),
    ],
)
def test_the_real_engine_gives_the_reason(
    spoil: Callable[[Path], None], flags: tuple[str, ...], reason: str, tmp_path: Path, log: Path
) -> None:
    requires_module("xllamacpp")
    model = make_tiny_llm(tmp_path / "m.gguf")
    spoil(model)
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        filled = [flag.replace("{model}", str(model)).replace("{port}", port) for flag in flags]
        command = [
            sys.executable,
            "-m",
            "gpustack.launchers.llama_cpp",
            "--model",
            str(model),
            "--threads",
            "1",
        ]
        with log.open("wb") as output:
            done = subprocess.run(
                [*command, *([] if "--port" in flags else ["--port", "0"]), *filled],
                cwd=ROOT, env=environment(), stdout=output, stderr=output, timeout=120, check=False,
                preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_AS, (3 << 30, 3 << 30)),
            )  # fmt: skip
    said = describe_exit(
        ExitStatus(code=done.returncode, signal=None), log, ready=False, projector=str(model)
    )
    before, _, after = reason.replace("{model}", str(model)).replace("{port}", port).partition("{any}")
    assert before in said and after in said
    assert ("projector" in said) == ("--mmproj" in flags)
