"""What comes from outside can be stored and shown."""

from __future__ import annotations

import json
import os
import ssl
import subprocess
from pathlib import Path

import pytest

from gpustack.errors import Invalid, Unavailable
from gpustack.text import (
    masked_arguments,
    masked_environment,
    presentable,
    printable,
    redacted,
    said_by,
    storable,
    washed,
)


@pytest.mark.parametrize(
    ("given", "shown"),
    [
        ("Ünïcode 模型.gguf", "Ünïcode 模型.gguf"),
        (os.fsdecode(b"caf\xe9.gguf"), r"caf\xe9.gguf"),
        (b"caf\xe9.gguf", r"caf\xe9.gguf"),
        (Path(os.fsdecode(b"/models/caf\xe9.gguf")), r"/models/caf\xe9.gguf"),
        ("\x1b[31mred", r"\x1b[31mred"),
        ("two\nlines", r"two\nlines"),
        ("nul\0", r"nul\x00"),
        ("\u202eturned", r"\u202eturned"),
        ("\u2028", r"\u2028"),
        ("\ud800", r"\ud800"),
        ("\x9b31m", r"\x9b31m"),
    ],
)
def test_text_from_outside_becomes_one_line_that_prints(given: str | bytes | Path, shown: str) -> None:
    assert printable(given) == shown
    assert json.loads(json.dumps(printable(given)).encode()) == shown


def test_long_text_is_cut_with_an_ellipsis() -> None:
    assert printable("abcdef", 3) == "abc…"
    assert printable("abc", 3) == "abc"


def test_text_of_several_lines_keeps_its_lines() -> None:
    assert presentable("a\n\tb \udce9\x00\x1b\r") == "a\n\tb \\xe9\\x00\\x1b\\r"


def test_every_error_of_ours_can_be_stored_whoever_s_names_are_in_it() -> None:
    name = os.fsdecode(b"caf\xe9\x00")
    assert str(Unavailable(f"There is no {name}")) == r"There is no caf\xe9\x00"
    error = Invalid(f"a {name}", "b")
    assert (str(error), error.faults) == (r"a caf\xe9\x00; b", (r"a caf\xe9\x00", "b"))


SECRET = "hf_Hunter2Hunter2"


@pytest.mark.attack("secret")
@pytest.mark.parametrize(
    "said",
    [
        f"Illegal header value b'Bearer {SECRET}\\n'",
        f"Illegal header value b'{SECRET} x, y'",
        f"Invalid header value b'{SECRET}\\n'",
        f'header value: "{SECRET}"',
        f"Invalid leading whitespace, reserved character(s), or return character(s) in header value: '{SECRET} x'",
        f"cannot reach https://me:{SECRET}@hub.example/x",
        f"https://hub.example/x?token={SECRET}&a=b",
        f"sent Authorization: Bearer {SECRET}",
    ],
)
def test_what_a_library_says_of_a_fault_shows_no_secret(said: str) -> None:
    for error in (ValueError(said), OSError(said), ssl.SSLError(1, said)):
        assert "Hunter2" not in said_by(error)
    assert "Hunter2" not in redacted(said)


def no_tls() -> ssl.SSLError:
    """What a client of TLS says of an answer in plain HTTP."""
    incoming = ssl.MemoryBIO()
    incoming.write(b"HTTP/1.1 400 Bad Request\r\n\r\n")
    client = ssl.create_default_context().wrap_bio(incoming, ssl.MemoryBIO(), server_hostname="server")
    with pytest.raises(ssl.SSLError) as raised:
        client.do_handshake()
    return raised.value


@pytest.mark.parametrize(
    ("error", "told"),
    [
        (
            FileNotFoundError(2, "No such file or directory", os.fsdecode(b"/secret/caf\xe9")),
            "No such file or directory",
        ),
        (
            ConnectionRefusedError(111, "[Errno 111] Connect call failed ('10.0.0.1', 80)"),
            "Connection refused",
        ),
        (OSError("no errno"), "no errno"),
        (no_tls(), "it does not speak TLS: its address begins with http://, not https://"),
        (OSError(-2, "Name or service not known"), "Name or service not known"),
        (ValueError("two\nlines"), "two lines"),
        (ValueError(), "ValueError"),
        (ValueError("x" * 1000), "x" * 200 + "…"),
        (
            UnicodeEncodeError("utf-8", "Hunter2\udce9", 7, 8, "surrogates not allowed"),
            r"surrogates not allowed",
        ),
        (subprocess.TimeoutExpired("nvidia-smi", 5), "Command 'nvidia-smi' timed out after 5 seconds"),
    ],
)
def test_a_fault_of_the_system_or_a_library_is_told_in_one_line(error: Exception, told: str) -> None:
    assert said_by(error) == told or (told in said_by(error) and "Hunter2" not in said_by(error))


def test_text_of_somebody_s_own_keeps_all_that_can_be_stored() -> None:
    own = "a\r\n\x1b[1m \u202e \U0001f468\u200d\U0001f469 \u2028"
    assert storable(own) == own
    assert storable("a\0b\ud83dc\udce9") == r"a\x00b\ud83dc\xe9"
    assert washed({"a\0": ["b\udce9", 1, None, ("c",)]}) == {r"a\x00": [r"b\xe9", 1, None, ["c"]]}


def test_a_variable_is_named_and_a_key_is_not() -> None:
    key = "gpustack_0123456789abcdef_0123456789abcdef0123456789abcdef"
    assert (
        redacted(f"GPUSTACK_SERVER_URL is set: {key}")
        == "GPUSTACK_SERVER_URL is set: gpustack_0123456789abcdef_***"
    )


def test_a_command_is_shown_without_the_secrets_in_it() -> None:
    command = [
        "serve",
        "--api-key",
        "abc",
        "--port",
        "80",
        "--hf-token=def",
        "http://me:pw@host",
        "--key",
        "--flag",
    ]
    assert masked_arguments(command) == [
        "serve",
        "--api-key",
        "***",
        "--port",
        "80",
        "--hf-token=***",
        "http://me:***@host",
        "--key",
        "--flag",
    ]
    counted = [
        "--max-tokens",
        "5",
        "--tokenizer-mode=slow",
        "--max-num-batched-tokens",
        "4096",
        "--tokenizer",
        "a/b",
    ]
    assert masked_arguments(counted) == counted
    assert masked_arguments(["--api-tokens", "a", "--hf-token-file", "b"]) == [
        "--api-tokens",
        "***",
        "--hf-token-file",
        "***",
    ]
    shown = masked_environment({"HF_TOKEN": "abc", "ARGS": "--api-key abc -v", "CUDA_VISIBLE_DEVICES": "0,1"})
    assert shown == {"HF_TOKEN": "***", "ARGS": "--api-key *** -v", "CUDA_VISIBLE_DEVICES": "0,1"}


@pytest.mark.attack("secret")
def test_every_value_of_a_flag_of_secrets_and_variables_as_people_call_them_are_masked() -> None:
    argv = [
        "serve",
        "--api-key",
        "one",
        "two",
        "--port",
        "80",
        "x",
        "--api-key",
        "-three",
        "-v",
        "a",
        "--no-auth",
    ]
    assert masked_arguments(argv) == [
        *("serve", "--api-key", "***", "***", "--port", "80", "x"),
        *("--api-key", "***", "-v", "a", "--no-auth"),
    ]
    names = ("AWS_ACCESS_KEY_ID", "WANDB_KEY", "LICENSE_KEYS", "PGPASS_FILE_PWD", "DB_PASS", "PROXY_AUTH")
    assert set(masked_environment(dict.fromkeys(names, "abc")).values()) == {"***"}
    plain = {"NCCL_DEBUG": "INFO", "KEYBOARD": "us", "COMPASS": "n", "OMP_NUM_THREADS": "4"}
    assert masked_environment(plain) == plain
