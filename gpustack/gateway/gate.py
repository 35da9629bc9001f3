"""Whether inference requests are accepted. Closed early in a stop, so that those in flight can finish."""

from __future__ import annotations

import attrs
import trio

from gpustack.errors import Unavailable


@attrs.define(eq=False, repr=False)
class Gate:
    """Closed until the routes are known. ``inside`` counts the requests that were let in and have not ended."""

    _open: bool = False
    inside: int = 0
    _left: trio.Event | None = None
    """Made by ``emptied`` alone, so that a request costs two additions."""

    @property
    def is_open(self) -> bool:
        """Whether new requests are accepted."""
        return self._open

    def open(self) -> None:
        """Accept requests from now on."""
        self._open = True

    def close(self) -> None:
        """Refuse new requests from now on."""
        self._open = False

    def enter(self) -> None:
        """Count a request in, or raise ``Unavailable``. After it ``leave`` must be called, however the request ends."""
        if not self._open:
            raise Unavailable("The server is starting or stopping; try again in a moment", retry_after=1.0)
        self.inside += 1

    def leave(self) -> None:
        """A request that was counted in has ended."""
        self.inside -= 1
        if self._left is not None and not self.inside:
            self._left.set()
            self._left = None

    async def emptied(self) -> None:
        """Wait until no request is inside. Cancellable."""
        while self.inside:
            if self._left is None:
                self._left = trio.Event()
            await self._left.wait()

    def __repr__(self) -> str:
        return f"<Gate: {'open' if self._open else 'closed'}, {self.inside} inside>"
