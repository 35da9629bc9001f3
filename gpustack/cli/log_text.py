"""Logs of engines as they come, piece by piece, made into text that cannot steer the terminal of who reads it."""

from __future__ import annotations

import codecs
import re

import attrs

from gpustack.cli.terminal import STEERING
from gpustack.text import printable

_UNFINISHED = re.compile("\r$|\x1b(?:\\[[0-9;]{0,32})?$")
"""What only the next piece tells the meaning of: the end of a line, or a colour."""


@attrs.define(eq=False)
class LogSanitizer:
    """Bytes in, bytes out. A character or a colour may come in two pieces; what steers is written out: ``\\x9b``."""

    _decoder: codecs.IncrementalDecoder = attrs.field(
        factory=lambda: codecs.getincrementaldecoder("utf-8")("surrogateescape")
    )
    _held: str = ""

    def take(self, piece: bytes) -> bytes:
        """What can be shown once this piece has come."""
        text = self._held + self._decoder.decode(piece)
        unfinished = _UNFINISHED.search(text)
        cut = len(text) if unfinished is None else unfinished.start()
        self._held = text[cut:]
        return _washed(text[:cut])

    def rest(self) -> bytes:
        """What is left when nothing comes any more."""
        text = self._held + self._decoder.decode(b"", final=True)
        self._held = ""
        return _washed(text)


def _washed(text: str) -> bytes:
    return STEERING.sub(lambda found: printable(found[0]), text.replace("\r\n", "\n")).encode()
