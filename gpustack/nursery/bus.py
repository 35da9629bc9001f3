"""Typed events inside one process: publishing never waits, and a slow listener is told to start over."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Generic, TypeVar

import attrs
import trio

E = TypeVar("E")


class Lagged(Exception):
    """Events were dropped for this listener: read the state again, then go on."""


@attrs.define(eq=False, repr=False)
class Listener(Generic[E]):
    """Hears events of some kinds, in the order they were published."""

    _kinds: tuple[type[Any], ...]
    _send: trio.MemorySendChannel[E]
    _receive: trio.MemoryReceiveChannel[E]
    _lagged: bool = False

    async def next(self) -> E:
        """The next event. Raises ``Lagged`` once after any number of dropped ones; cancelling loses none."""
        if self._lagged:
            await trio.lowlevel.checkpoint()
            self._forget_backlog()
            self._lagged = False
            raise Lagged
        return await self._receive.receive()

    def _offer(self, event: E) -> None:
        if self._lagged or not isinstance(event, self._kinds):
            return
        try:
            self._send.send_nowait(event)
        except trio.WouldBlock:
            self._lagged = True

    def _forget_backlog(self) -> None:
        while self._receive.statistics().current_buffer_used:
            self._receive.receive_nowait()

    def _close(self) -> None:
        self._send.close()
        self._receive.close()

    def __repr__(self) -> str:
        kinds = " or ".join(kind.__name__ for kind in self._kinds)
        waiting = self._receive.statistics().current_buffer_used
        return f"<Listener to {kinds}: {'lagged' if self._lagged else f'{waiting} waiting'}>"


@attrs.define(eq=False, repr=False)
class Bus(Generic[E]):
    """Passes each event published to every listener to its kind."""

    _listeners: list[Listener[E]] = attrs.field(factory=list)

    def publish(self, event: E) -> None:
        """Offer ``event`` to all listeners; never waits. Only from the Trio thread."""
        for listener in self._listeners:
            listener._offer(event)

    @contextmanager
    def listen(self, *kinds: type[Any], room: int = 64) -> Iterator[Listener[E]]:
        """Hear events that are instances of ``kinds`` (none: all); at most ``room`` wait to be read."""
        listener = Listener(kinds or (object,), *trio.open_memory_channel[E](room))
        self._listeners.append(listener)
        try:
            yield listener
        finally:
            self._listeners.remove(listener)
            listener._close()

    def __repr__(self) -> str:
        lagged = sum(listener._lagged for listener in self._listeners)
        return f"<Bus: {len(self._listeners)} listeners, {lagged} lagged>"
