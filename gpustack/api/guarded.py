"""A stream that ends when who asked for it may no longer have it."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack
from types import TracebackType

import attrs
import outcome
import trio

from gpustack.nursery.wake import Wake
from gpustack.store.store import Store

from .route import BodyStream

_LOOK_EVERY = 15.0
"""Seconds after which a key or login that has come to its end is noticed; what somebody does is noticed at once."""


@attrs.define(eq=False, kw_only=True, repr=False)
class RevocableStream:
    """Hands on the pieces of ``stream`` as long as ``allowed`` says yes; asked anew when one of ``guards`` changes,
    also while the stream is silent."""

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
            # Kept as it is, the end included: a nursery would make a group of it.
            next_one = await outcome.acapture(self._stream.__anext__)
            nursery.cancel_scope.cancel()

        async with trio.open_nursery() as nursery:
            nursery.start_soon(read)
            while self._allowed():
                await self._wake.wait(_LOOK_EVERY)
            barred = True
            nursery.cancel_scope.cancel()
        # What came while the right to it went is not handed on.
        if next_one is None or barred or not self._allowed():
            raise StopAsyncIteration
        return next_one.unwrap()

    def __repr__(self) -> str:
        return f"<Guarded {self._stream!r}>"
