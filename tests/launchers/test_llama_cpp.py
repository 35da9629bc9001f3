"""The embedded llama.cpp as a program: what it serves, how it ends, and what it says of wrong arguments."""

from __future__ import annotations

import json
import os
import re
import selectors
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

import pytest

from gpustack.domain.instance import Claim
from gpustack.engines import parameters
from gpustack.engines.llama_cpp import ENGINE
from tests.child import ROOT, environment
from tests.engines.worlds import context, model
from tests.models import make_embedder, make_tiny_llm
from tests.needs import requires_module

PROGRAM = [sys.executable, "-m", "gpustack.launchers.llama_cpp"]
LISTENING = re.compile(rb"llama_cpp: listening on (\S+)\n")


@pytest.fixture(autouse=True)
def _needs_the_wheel() -> None:
    requires_module("xllamacpp")


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_tiny_llm(tmp_path_factory.mktemp("models") / "tiny.gguf", "I am the tiny one.")


@contextmanager
def serving(model: Path, *flags: str, **env: str) -> Iterator[tuple[subprocess.Popen[bytes], str]]:
    """The program on a free port; its address once it says that it listens."""
    command = [*PROGRAM, "--model", str(model), "--port", "0", "--ctx-size", "2048", "--threads", "1", *flags]
    process = subprocess.Popen(
        command, cwd=ROOT, env=environment(**env), stderr=subprocess.PIPE, start_new_session=True
    )
    assert process.stderr is not None
    try:
        yield process, _address(process.stderr)
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
        process.wait(10)
        process.stderr.close()


def _address(stream: IO[bytes]) -> str:
    deadline, said = time.monotonic() + 30, b""
    with selectors.DefaultSelector() as selector:
        selector.register(stream, selectors.EVENT_READ)
        while selector.select(max(0.0, deadline - time.monotonic())):
            more = os.read(stream.fileno(), 65536)
            said += more
            # The engine's own log may stand on the same line: it writes from another thread, in pieces.
            if found := LISTENING.search(said):
                return found[1].decode()
            if not more:
                raise AssertionError(f"it ended before it listened: {said!r}")
    raise AssertionError(f"it did not listen within 30 s: {said!r}")


def ask(address: str, path: str, body: dict[str, Any] | None = None, **headers: str) -> Any:
    data = None if body is None else json.dumps(body).encode()
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    with opener.open(urllib.request.Request(address + path, data, headers), timeout=30) as response:
        return json.load(response)


def refused(*arguments: str) -> str:
    done = subprocess.run(
        [*PROGRAM, *arguments], cwd=ROOT, env=environment(), capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 2
    return done.stderr.strip()


def test_it_is_healthy_and_answers_chat_under_its_alias(tiny: Path) -> None:
    with serving(tiny, "--alias", "one, with a comma", "--kv-unified", "--parallel", "4") as (_, address):
        assert address.startswith("http://127.0.0.1:")
        assert ask(address, "/health") == {"status": "ok"}
        assert ask(address, "/v1/models")["data"][0]["id"] == "one, with a comma"
        answer = ask(address, "/v1/chat/completions", {"messages": [{"role": "user", "content": "Who?"}]})
        assert answer["choices"][0]["message"]["content"] == "I am the tiny one."


def test_it_embeds(tmp_path: Path) -> None:
    with serving(make_embedder(tmp_path / "embedder.gguf"), "--embeddings", "--parallel", "1") as (
        _,
        address,
    ):
        answer = ask(address, "/v1/embeddings", {"input": ["a", "b"]})
        assert [len(item["embedding"]) > 8 for item in answer["data"]] == [True, True]


def test_sigterm_lets_a_running_request_finish(tiny: Path) -> None:
    with serving(tiny, "--drain-seconds", "60") as (process, address):
        body = {"prompt": "Go on", "max_tokens": 1500, "ignore_eos": True, "stream": True}
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        request = urllib.request.Request(f"{address}/v1/completions", json.dumps(body).encode())
        with opener.open(request, timeout=60) as stream:
            stream.readline()
            process.send_signal(signal.SIGTERM)
            assert b"data: [DONE]" in stream.read()
        assert process.wait(20) == 0


def test_sigterm_ends_it_at_once_when_nothing_runs(tiny: Path) -> None:
    with serving(tiny, "--drain-seconds", "600") as (process, _):
        process.send_signal(signal.SIGTERM)
        assert process.wait(20) == 0


def test_an_engine_that_sleeps_ends_without_loading_its_model_again(tiny: Path, tmp_path: Path) -> None:
    model = tmp_path / "tiny.gguf"
    model.write_bytes(tiny.read_bytes())
    with serving(model, "--sleep-idle-seconds", "1", "--drain-seconds", "600") as (process, address):
        while not ask(address, "/props")["is_sleeping"]:
            time.sleep(0.1)
        model.unlink()  # so that an engine that woke could not even start
        process.send_signal(signal.SIGTERM)
        assert process.wait(30) == 0
        assert process.stderr is not None
        said = process.stderr.read()
        assert b"exiting sleeping state" not in said
        assert b"loading model" not in said


def together(address: str, requests: int, tokens: int) -> list[tuple[int, int]]:
    """Status and tokens of answers to ``requests`` at a time, each of which asks for ``tokens``."""

    def one(number: int) -> tuple[int, int]:
        body = {"prompt": f"Number {number}", "max_tokens": tokens, "ignore_eos": True}
        try:
            return 200, ask(address, "/v1/completions", body)["usage"]["completion_tokens"]
        except urllib.error.HTTPError as error:
            with error:
                return error.code, 0

    with ThreadPoolExecutor(requests) as pool:
        return list(pool.map(one, range(requests)))


@pytest.mark.parametrize("claimed", [4, 1, None])
def test_requests_that_each_fit_the_context_succeed_beside_others(tiny: Path, claimed: int | None) -> None:
    """As the product starts the engine; six that nearly fill a context each, so that some must wait."""
    launch = ENGINE.launch(
        context(
            model(backend_parameters=("--ctx-size=512",)), model_path=str(tiny), claim=Claim(slots=claimed)
        )
    )
    divided = [f"{flag}={parameters.value_of(launch.argv, flag)}" for flag in ("--ctx-size", "--parallel")]
    with serving(tiny, *divided) as (_, address):
        assert together(address, 6, 400) == [(200, 400)] * 6
        assert {slot["n_ctx"] for slot in ask(address, "/slots")} == {512}


def test_a_cache_that_the_user_unifies_fails_requests_together(tiny: Path) -> None:
    """Why it is not the default."""
    with serving(tiny, "--ctx-size", "512", "--parallel", "4", "--kv-unified") as (_, address):
        assert (500, 0) in together(address, 4, 400)


def test_a_key_from_the_environment_is_asked_for(tiny: Path) -> None:
    with serving(tiny, LLAMA_API_KEY="open-sesame") as (process, address):
        assert ask(address, "/health") == {"status": "ok"}
        with pytest.raises(urllib.error.HTTPError, match="401") as refusal:
            ask(address, "/v1/completions", {"prompt": "a"})
        refusal.value.close()
        assert ask(address, "/slots", Authorization="Bearer open-sesame")
        assert "open-sesame" not in Path(f"/proc/{process.pid}/cmdline").read_text()


def test_a_mistyped_flag_is_answered_with_the_right_one() -> None:
    assert refused("--ctx-sise", "4") == "llama_cpp: unknown argument '--ctx-sise'; did you mean --ctx-size?"


def test_what_the_build_lacks_is_refused_with_the_reason() -> None:
    assert "built without RPC; install a llama-server that has it" in refused("--rpc", "10.0.0.1:50052")


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (("--ctx-size", "many"), "llama_cpp: --ctx-size: 'many' is not a number"),
        (("--ctx-size",), "llama_cpp: --ctx-size needs a value"),
        (("--metrics=on",), "llama_cpp: --metrics takes no value"),
        (("--pooling", "max"), "is not one of unspecified, none, mean, cls, last, rank"),
        (("--port", "70000"), "is not a port from 0 to 65535"),
        ((), "llama_cpp: --model is required"),
        (("--model", "nowhere.gguf"), "llama_cpp: --model: there is no file nowhere.gguf"),
    ],
)
def test_wrong_arguments_get_one_sentence_and_code_2(arguments: tuple[str, ...], sentence: str) -> None:
    said = refused(*arguments)
    assert sentence in said
    assert "\n" not in said


def test_a_file_that_is_no_model_ends_it_with_code_1(tmp_path: Path) -> None:
    path = tmp_path / "no.gguf"
    path.write_text("not a model")
    done = subprocess.run(
        [*PROGRAM, "--model", str(path), "--port", "0"],
        cwd=ROOT, env=environment(), capture_output=True, text=True, timeout=60,
    )  # fmt: skip
    assert done.returncode == 1
    assert "llama_cpp: the engine did not start: " in done.stderr


def test_every_flag_of_the_table_can_be_set() -> None:
    """A renamed setting of a newer wheel shows here, not when a user needs it."""
    import xllamacpp

    from gpustack.launchers.flag import apply
    from gpustack.launchers.llama_flags import REFUSED, flags

    words = {
        "host": "127.0.0.1", "slot-save-path": "/tmp", "chat-template-kwargs": "{}", "fit": "on", "reasoning": "auto",
        "cache-type-k": "q8_0", "cache-type-v": "f16", "flash-attn": "auto", "pooling": "mean", "rope-scaling": "yarn",
        "split-mode": "layer", "load-mode": "mmap", "lazy-mode": "auto", "numa": "isolate", "spec-type": "ngram-mod",
        "reasoning-format": "none", "lora-scaled": "a.gguf:0.5", "override-tensor": "exps=CPU",
    }  # fmt: skip
    names = set()
    for flag in flags(xllamacpp):
        names.update(flag.names)
        longest = max(flag.names, key=len)
        if longest == "--chat-template-file":
            continue
        value = [words.get(name.removeprefix("--"), "1") for name in flag.names if name.startswith("--")]
        chosen = next((v for v in value if v != "1"), "1")
        apply(flags(xllamacpp), REFUSED, xllamacpp.CommonParams(), [longest, *([chosen] * flag.takes_value)])
    assert len(names) > 200
    assert not names & set(REFUSED)
