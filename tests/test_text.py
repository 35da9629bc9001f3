"""What comes from outside can be stored and shown."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from gpustack.text import printable


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
