"""Where a command's words go: colours, and lines that are drawn over, only where a person looks at them."""

from __future__ import annotations

import re
import shutil
import sys
from collections.abc import Mapping
from typing import TextIO

import attrs

_CODES = {"bold": "1", "dim": "2", "red": "31", "green": "32", "yellow": "33", "cyan": "36"}

# Colours alone may pass: other codes set the title, write to the clipboard, or hide and forge what stands there. So do
# the controls of C1, marks of text direction, separators of lines, and bytes that are no text.
STEERING = re.compile(
    "\x1b(?!\\[[0-9;]{0,32}m)|[\x00-\x08\x0b-\x1a\x1c-\x1f\x7f-\x9f\u061c\u180e\u200b\u200e\u200f\u2028-\u202e"
    "\u2060-\u206f\ufeff\ufff9-\ufffb\U000e0000-\U000e007f\ud800-\udfff]"
)


def harmless(text: str) -> str:
    """What others wrote (models, engines, workers), without what would steer the terminal of who reads it.

    As long as before, so that columns stay where they are.
    """
    return STEERING.sub("\ufffd", text)


@attrs.define(eq=False)
class Terminal:
    """A stream. ``live`` tells that a line may be drawn over, ``colour`` that styles show, ``width`` in columns."""

    stream: TextIO
    live: bool = False
    colour: bool = False
    width: int = 80
    _drawn: bool = False

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
        """Take back what is drawn."""
        if self._drawn:
            self.stream.write("\r\x1b[K")
            self.stream.flush()
            self._drawn = False

    def style(self, text: str, style: str | None) -> str:
        """``text`` in a colour of the table above, where colours show."""
        text = harmless(text)
        if not self.colour or style is None:
            return text
        return f"\x1b[{_CODES[style]}m{text}\x1b[0m"


def stdout(env: Mapping[str, str]) -> Terminal:
    """Where results go."""
    return terminal(sys.stdout, env)


def stderr(env: Mapping[str, str]) -> Terminal:
    """Where what is said about results goes."""
    return terminal(sys.stderr, env)


def terminal(stream: TextIO, env: Mapping[str, str]) -> Terminal:
    """``stream`` as this environment wants it: NO_COLOR and TERM=dumb are honoured."""
    live = stream.isatty() and env.get("TERM") != "dumb"
    return Terminal(
        stream=stream,
        live=live,
        colour=live and not env.get("NO_COLOR"),
        width=shutil.get_terminal_size().columns if live else 80,
    )
