"""The terminal of a command: colours, lines that are drawn over, and the washing of text that would steer it."""

from __future__ import annotations

import codecs
import re
import shutil
import sys
from collections.abc import Mapping
from typing import TextIO

import attrs

from gpustack.text import printable

_CODES = {"bold": "1", "dim": "2", "red": "31", "green": "32", "yellow": "33", "cyan": "36"}

# Only colours may pass. Other codes set the title, write to the clipboard, or hide and forge what is shown; so do C1
# controls, marks of text direction, line separators, and bytes that are no text.
STEERING = re.compile(
    "\x1b(?!\\[[0-9;]{0,32}m)|[\x00-\x08\x0b-\x1a\x1c-\x1f\x7f-\x9f\u061c\u180e\u200b\u200e\u200f\u2028-\u202e"
    "\u2060-\u206f\ufeff\ufff9-\ufffb\U000e0000-\U000e007f\ud800-\udfff]"
)
_UNFINISHED = re.compile("\r$|\x1b(?:\\[[0-9;]{0,32})?$")
"""The end of a piece whose meaning depends on the next piece: half a line end, or half a colour code."""


def harmless(text: str) -> str:
    """Text of others (models, engines, workers) without the codes that would steer a terminal.

    Its length stays the same, so that columns stay where they are.
    """
    return STEERING.sub("\ufffd", text)


@attrs.define(eq=False)
class Terminal:
    """A stream. ``live``: a line may be drawn over; ``colour``: styles show; ``width`` is in columns."""

    stream: TextIO
    live: bool = False
    colour: bool = False
    width: int = 80
    _drawn: bool = False

    @property
    def utf8(self) -> bool:
        """Whether letters beyond ASCII show."""
        return (getattr(self.stream, "encoding", None) or "").lower().replace("-", "") == "utf8"

    def say(self, line: str) -> None:
        """Print a line that stays."""
        self.clear()
        print(harmless(line), file=self.stream, flush=True)

    def draw(self, line: str) -> None:
        """Show a line until the next one; nothing where lines cannot be drawn over."""
        if self.live:
            self.stream.write(f"\r\x1b[K{harmless(line)}")
            self.stream.flush()
            self._drawn = True

    def clear(self) -> None:
        """Erase the line that is drawn."""
        if self._drawn:
            self.stream.write("\r\x1b[K")
            self.stream.flush()
            self._drawn = False

    def style(self, text: str, style: str | None) -> str:
        """``text`` in a colour of ``_CODES``, where colours show."""
        text = harmless(text)
        if not self.colour or style is None:
            return text
        return f"\x1b[{_CODES[style]}m{text}\x1b[0m"


def stdout(env: Mapping[str, str]) -> Terminal:
    """Where results go."""
    return terminal(sys.stdout, env)


def stderr(env: Mapping[str, str]) -> Terminal:
    """Where everything else goes: remarks, questions, progress."""
    return terminal(sys.stderr, env)


def terminal(stream: TextIO, env: Mapping[str, str]) -> Terminal:
    """``stream`` as a terminal; NO_COLOR and TERM=dumb are honoured."""
    live = stream.isatty() and env.get("TERM") != "dumb"
    return Terminal(
        stream=stream,
        live=live,
        colour=live and not env.get("NO_COLOR"),
        width=shutil.get_terminal_size().columns if live else 80,
    )


@attrs.define(eq=False)
class LogSanitizer:
    """Makes the log of an engine harmless for a terminal, piece by piece; what would steer is written out: ``\\x9b``.

    A character or a colour code may come in two pieces.
    """

    _decoder: codecs.IncrementalDecoder = attrs.field(
        factory=lambda: codecs.getincrementaldecoder("utf-8")("surrogateescape")
    )
    _held: str = ""

    def take(self, piece: bytes) -> bytes:
        """The bytes that can be shown now."""
        text = self._held + self._decoder.decode(piece)
        unfinished = _UNFINISHED.search(text)
        cut = len(text) if unfinished is None else unfinished.start()
        self._held = text[cut:]
        return _washed(text[:cut])

    def rest(self) -> bytes:
        """The bytes that are left at the end of the log."""
        text = self._held + self._decoder.decode(b"", final=True)
        self._held = ""
        return _washed(text)


def _washed(text: str) -> bytes:
    return STEERING.sub(lambda found: printable(found[0]), text.replace("\r\n", "\n")).encode()
