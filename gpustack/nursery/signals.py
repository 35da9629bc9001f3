"""Calls functions for the signals of a daemon."""

from __future__ import annotations

import signal
import sys
from collections.abc import Callable
from typing import Any

import attrs
import trio

from .tier import draw_tree


def _to_stderr(text: str) -> None:
    print(text, file=sys.stderr, flush=True)  # noqa: T201  an operator asked for it with SIGUSR1


@attrs.define(eq=False, kw_only=True)
class Signals:
    """A service. TERM or INT calls ``drain``, a second one ``at_once``; HUP ``hand_over``; USR1 writes the task tree.

    The functions must return at once. Two signals of the same number that arrive before the first is seen count as
    one, as always with signals.
    """

    drain: Callable[[], object]
    at_once: Callable[[], object]
    hand_over: Callable[[], object] = lambda: None
    write: Callable[[str], object] = _to_stderr
    root: trio.lowlevel.Task | None = None
    name: str = "signals"
    _draining: bool = attrs.field(default=False, init=False)

    async def run(self, *, task_status: trio.TaskStatus[Any] = trio.TASK_STATUS_IGNORED) -> None:
        with trio.open_signal_receiver(
            signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGUSR1
        ) as received:
            task_status.started()
            async for number in received:
                self._on(number)

    def _on(self, number: int) -> None:
        if number == signal.SIGHUP:
            self.hand_over()
        elif number == signal.SIGUSR1:
            root = self.root or trio.lowlevel.current_root_task()
            if root is not None:
                self.write(draw_tree(root))
        elif self._draining:
            self.at_once()
        else:
            self._draining = True
            self.drain()
