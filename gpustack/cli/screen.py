"""A view that fills the terminal and is drawn again and again, until it is left by a key or by Ctrl-C."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import sys
from collections.abc import Awaitable, Callable, Iterator, Sequence
from typing import Any

import attrs
import trio

from gpustack.cli.terminal import Terminal
from gpustack.nursery.wake import Wake

_ENTER = "\x1b[?1049h\x1b[?25l\x1b[?7l"
"""The other screen, no cursor, and lines that are cut at the edge."""
_LEAVE = "\x1b[?7h\x1b[?25h\x1b[?1049l"
_REDRAW = 1.0
"""Seconds after which it is drawn anew where nothing has changed: ages go on."""
_AT_MOST_EVERY = 0.2

Frame = Callable[[], Sequence[str]]
"""The lines to show, all of them; the terminal has its width."""


@attrs.define(eq=False)
class Screen:
    """What is shown, and the wish to see it drawn again. ``live`` is a terminal."""

    terminal: Terminal
    frame: Frame
    fault: str = ""
    """Why what is shown is old; empty where it is not."""
    _wake: Wake = attrs.field(factory=Wake)
    _is_begun: bool = False
    _is_there: bool = False
    """The other screen is the one that shows."""

    def changed(self) -> None:
        """There is something new to show."""
        self._wake.wake()

    def draw(self) -> None:
        """Draw as many lines as there is room for, and below them how many there are more and how to leave."""
        size = shutil.get_terminal_size()
        self.terminal.width = size.columns
        lines = [*self.frame()]
        room = max(size.lines - 1, 1)
        left = len(lines) - room
        how = "q ends it" if sys.stdin.isatty() else "Ctrl-C ends it"
        told = [f"{left} more lines"] if left > 0 else []
        foot = self.terminal.style("; ".join([*filter(None, [self.fault]), *told, how]), "dim")
        text = "".join(f"{line}\x1b[K\n" for line in lines[:room])
        self._write(f"\x1b[H{text}{foot}\x1b[K\x1b[J")

    async def run(self, work: Callable[[], Awaitable[None]]) -> None:
        """Show it while ``work`` runs, until that ends or somebody types q. What was shown last stays on the terminal.

        Raises what ``work`` raises; Ctrl-C and SIGTERM leave the terminal as it was found.
        """
        ended_by: list[int] = []
        try:
            with _keys_at_once():
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(self._redraw)
                    nursery.start_soon(self._obey_signals, nursery.cancel_scope, ended_by)
                    nursery.start_soon(_obey_keys, nursery.cancel_scope)
                    await work()
                    nursery.cancel_scope.cancel()
        finally:
            self._leave()
            if self._is_begun:
                self._write("".join(f"{line}\n" for line in self.frame()))
        if ended_by:
            signal.raise_signal(ended_by[0])

    async def _redraw(self) -> None:
        await self._wake.wait()
        self._is_begun = True
        self._enter()
        while True:
            self.draw()
            await self._wake.wait(_REDRAW)
            await trio.sleep(_AT_MOST_EVERY)

    async def _obey_signals(self, scope: trio.CancelScope, ended_by: list[int]) -> None:
        with trio.open_signal_receiver(signal.SIGTERM, signal.SIGHUP, signal.SIGTSTP) as arrived:
            async for number in arrived:
                if number == signal.SIGTSTP:
                    self._leave()
                    os.kill(os.getpid(), signal.SIGSTOP)
                    if self._is_begun:
                        self._enter()
                        self.changed()
                else:
                    ended_by.append(number)
                    scope.cancel()

    def _enter(self) -> None:
        self._write(_ENTER)
        self._is_there = True

    def _leave(self) -> None:
        if self._is_there:
            self._is_there = False
            self._write(_LEAVE)

    def _write(self, text: str) -> None:
        self.terminal.stream.write(text)
        self.terminal.stream.flush()


@contextlib.contextmanager
def _keys_at_once() -> Iterator[None]:
    """Within the block keys come when they are typed, not with the end of the line, and are not shown."""
    import termios
    import tty

    if not sys.stdin.isatty():
        yield
        return
    number = sys.stdin.fileno()
    before: list[Any] = termios.tcgetattr(number)
    try:
        tty.setcbreak(number, termios.TCSANOW)
        yield
    finally:
        termios.tcsetattr(number, termios.TCSANOW, before)


async def _obey_keys(scope: trio.CancelScope) -> None:
    """End ``scope`` when q is typed."""
    if not sys.stdin.isatty():
        return
    number = sys.stdin.fileno()
    while True:
        await trio.lowlevel.wait_readable(number)
        typed = os.read(number, 256)
        if not typed:
            return  # the terminal is gone
        if b"q" in typed.lower():
            scope.cancel()
