"""A stream that has been begun already, so that what goes wrong at its beginning is still an answer of its own."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from types import TracebackType

import attrs


@attrs.define(eq=False)
class OpenedStream:
    """Its beginning has been seen to be good; ``stack`` is let go when the body is left."""

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
