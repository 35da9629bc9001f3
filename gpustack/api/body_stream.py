"""Answers that are sent while they are made: the interface, and the two streams that wrap others."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, ExitStack
from types import TracebackType
from typing import Protocol

import attrs
import outcome
import trio

from gpustack.nursery.wake import Wake
from gpustack.store.store import Store

_CHECK_EVERY = 15.0
"""Seconds between two looks at the caller's rights while no record changes: a key may have expired meanwhile."""


class BodyStream(Protocol):
    """A body as an asynchronous iterator of bytes. It is entered before the first piece is asked for, and left after
    the last or when the client goes."""

    async def __aenter__(self) -> BodyStream: ...

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> object: ...

    def __aiter__(self) -> BodyStream: ...

    async def __anext__(self) -> bytes: ...


@attrs.define(eq=False)
class OpenedStream:
    """A stream whose source was opened by the handler, so that its failure to open is an answer with a status.

    ``stack`` holds what the source needs, and is closed when the body is left.
    """

    _stack: AsyncExitStack
    _pieces: AsyncIterator[bytes]

    async def __aenter__(self) -> OpenedStream:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._stack.aclose()

    def __aiter__(self) -> OpenedStream:
        return self

    async def __anext__(self) -> bytes:
        return await anext(self._pieces)


@attrs.define(eq=False, kw_only=True, repr=False)
class RevocableStream:
    """Passes on the pieces of ``stream`` until ``allowed`` says no.

    It is asked whenever a table of ``guards`` changes, and every ``_CHECK_EVERY`` seconds, also while the stream is
    silent.
    """

    _stream: BodyStream
    _store: Store
    _guards: frozenset[str]
    _allowed: Callable[[], bool]
    _wake: Wake = attrs.field(factory=Wake)
    _open: ExitStack = attrs.field(factory=ExitStack)

    async def __aenter__(self) -> RevocableStream:
        self._wake = self._open.enter_context(self._store.watch(self._guards))
        await self._stream.__aenter__()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> object:
        self._open.close()
        return await self._stream.__aexit__(kind, error, trace)

    def __aiter__(self) -> RevocableStream:
        return self

    async def __anext__(self) -> bytes:
        next_one: outcome.Outcome[bytes] | None = None
        barred = False

        async def read() -> None:
            nonlocal next_one
            # Captured, the end of the stream included: raised here, the nursery would wrap it in a group.
            next_one = await outcome.acapture(self._stream.__anext__)
            nursery.cancel_scope.cancel()

        async with trio.open_nursery() as nursery:
            nursery.start_soon(read)
            while self._allowed():
                await self._wake.wait(_CHECK_EVERY)
            barred = True
            nursery.cancel_scope.cancel()
        # A piece that arrives while the right is lost is not passed on.
        if next_one is None or barred or not self._allowed():
            raise StopAsyncIteration
        return next_one.unwrap()

    def __repr__(self) -> str:
        return f"<RevocableStream {self._stream!r}>"
