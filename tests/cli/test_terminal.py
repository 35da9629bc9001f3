"""What models, engines and machines say cannot steer the terminal of who reads it."""

from __future__ import annotations

import io

import pytest

from gpustack.cli.output import Row, draw_table
from gpustack.cli.terminal import LogSanitizer, Terminal, harmless

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
    "\x85next",
    "\x9d0;title\x9c",
    "\u202egpj.exe",
    "\u2066a\u2069",
    "\u200fb",
    "a\u2028b",
    "\ufeffa",
    "\U000e0041",
    "\udcff",
]
BAD = set("\x1b\x07\x9b\x9c\x9d\x85\r\b\u202e\u2066\u2069\u200f\u2028\ufeff\U000e0041\udcff")


@pytest.mark.parametrize("text", STEERING, ids=ascii)
def test_codes_that_steer_a_terminal_are_taken_out(text: str) -> None:
    shown = harmless(text)
    assert len(shown) == len(text), "columns stay where they are"
    assert not set(shown) & BAD


@pytest.mark.attack("forged-line")
@pytest.mark.parametrize("text", STEERING, ids=ascii)
@pytest.mark.parametrize("size", [1, 2, 1000])
def test_a_log_steers_no_terminal_however_it_comes_in_pieces(text: str, size: int) -> None:
    raw = f"before {text} after\n".encode(errors="surrogateescape")
    shown = washed(*(raw[at : at + size] for at in range(0, len(raw), size)))
    assert not set(shown) & BAD
    assert shown.startswith("before ") and shown.endswith(" after\n")


def washed(*pieces: bytes) -> str:
    text = LogSanitizer()
    return b"".join([*map(text.take, pieces), text.rest()]).decode()


@pytest.mark.parametrize("size", [1, 2, 3, 1000])
def test_a_log_keeps_its_text_colours_and_lines(size: int) -> None:
    text = "Grüße, 世界\u3000👩\u200d🔬\n\tgreen \x1b[1;32mword\x1b[0m\r\n"
    raw = text.encode()
    shown = washed(*(raw[at : at + size] for at in range(0, len(raw), size)))
    assert shown == text.replace("\r\n", "\n")
    assert washed(b"caf\xe9\n", b"\x1b") == "caf\\xe9\n\\x1b"
    assert LogSanitizer().take(b"a prompt> ") == b"a prompt> ", "what is whole is shown at once"


def test_text_colours_and_line_breaks_pass() -> None:
    text = "Grüße, 世界\n\tgreen \x1b[1;32mword\x1b[0m"
    assert harmless(text) == text


def test_whatever_is_said_drawn_or_tabled_is_harmless() -> None:
    stream = io.StringIO()
    terminal = Terminal(stream=stream, live=False, colour=True)
    terminal.say("evil \x1b]0;x\x07")
    terminal.say(draw_table(["NAME"], [Row(["w\x1b[2Jx"], remark="\x1b]52;c;x\x07")], terminal))
    assert "\x1b]" not in stream.getvalue()
    assert "\x1b[2J" not in stream.getvalue()
    assert "\x1b[1m" in stream.getvalue(), "our own colours stay"
