"""The lines of several logs as one text, each behind the name of the instance that wrote it."""

from __future__ import annotations

import sys
from typing import BinaryIO

import attrs

from gpustack.cli.columns import width_of
from gpustack.cli.terminal import LogSanitizer, Terminal

_COLOURS = ("cyan", "green", "yellow", "red")
_LONGEST = 64 << 10
"""Bytes after which a line is written although its end has not come."""


@attrs.define(eq=False)
class LogMerge:
    """Where the logs go. ``terminal`` is stdout, of which the bytes are written to ``out``. While ``prefixed`` is False
    there is one log, whose bytes pass as they come."""

    terminal: Terminal
    prefixed: bool
    out: BinaryIO = attrs.Factory(lambda: sys.stdout.buffer)
    _names: list[str] = attrs.field(factory=list)

    def source(self, name: str) -> MergedLog:
        """What takes the log of an instance."""
        if name not in self._names:
            self._names.append(name)
        return MergedLog(self, name, LogSanitizer() if self.terminal.live else None)

    def prefix(self, name: str) -> bytes:
        """The name of an instance in front of its lines, as wide as the longest, each in a colour of its own."""
        gap = " " * (max(map(width_of, self._names)) - width_of(name))
        colour = _COLOURS[self._names.index(name) % len(_COLOURS)]
        return f"{self.terminal.style(f'{name}{gap} |', colour)} ".encode()


@attrs.define(eq=False)
class MergedLog:
    """The log of one instance on its way to the others'."""

    _merge: LogMerge
    _name: str
    _washed: LogSanitizer | None
    _rest: bytes = b""

    def take(self, piece: bytes) -> None:
        """Write what is whole: lines where there are several logs."""
        self._write(piece if self._washed is None else self._washed.take(piece))

    def end(self) -> None:
        """Write what is left of a line."""
        self._write(b"" if self._washed is None else self._washed.rest())
        if self._rest:
            self._write(b"\n")

    def _write(self, piece: bytes) -> None:
        if self._merge.prefixed:
            *lines, self._rest = (self._rest + piece).split(b"\n")
            if len(self._rest) > _LONGEST:
                lines, self._rest = [*lines, self._rest], b""
            prefix = self._merge.prefix(self._name)
            text = b"".join(prefix + line + b"\n" for line in lines)
        else:
            text = piece
        if text:
            self._merge.out.write(text)
            self._merge.out.flush()
