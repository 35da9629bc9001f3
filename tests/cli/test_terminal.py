"""What models, engines and machines say cannot steer the terminal of who reads it."""

from __future__ import annotations

import io

import pytest

from gpustack.cli.table import Row, draw
from gpustack.cli.terminal import Terminal, harmless, harmless_bytes

STEERING = [
    "\x1b]0;title\x07",
    "\x1b]52;c;cGFzdGUgbWU=\x07",
    "\x1b[2J",
    "\x1b[8;1H",
    "\x1b[?1049h",
    "\x9b2J",
    "\x1bc",
    "a\rb",
    "a\bb",
    "\x1b",
    "\x1b[" + "1" * 50 + "m",
]


@pytest.mark.parametrize("text", STEERING, ids=ascii)
def test_codes_that_steer_a_terminal_are_taken_out(text: str) -> None:
    shown = harmless(text)
    assert len(shown) == len(text), "columns stay where they are"
    assert not set(shown) & set("\x1b\x07\x9b\r\b")
    assert not set(harmless_bytes(text.encode())) & set(b"\x1b\x07\r\b")


def test_text_colours_and_line_breaks_pass() -> None:
    text = "Grüße, 世界\n\tgreen \x1b[1;32mword\x1b[0m"
    assert harmless(text) == text
    assert harmless_bytes(text.encode()) == text.encode()
    assert harmless_bytes(b"a\r\nb\n") == b"a\nb\n"


def test_whatever_is_said_drawn_or_tabled_is_harmless() -> None:
    stream = io.StringIO()
    terminal = Terminal(stream=stream, live=False, colour=True)
    terminal.say("evil \x1b]0;x\x07")
    terminal.say(draw(["NAME"], [Row(["w\x1b[2Jx"], remark="\x1b]52;c;x\x07")], terminal))
    assert "\x1b]" not in stream.getvalue()
    assert "\x1b[2J" not in stream.getvalue()
    assert "\x1b[1m" in stream.getvalue(), "our own colours stay"
