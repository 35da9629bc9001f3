"""Whether inference is taken in; closed first when the daemon stops, so that what is under way can finish."""

from __future__ import annotations

import attrs
import trio

from gpustack.errors import Unavailable


@attrs.define(eq=False, repr=False)
class Gate:
    """Opened once the routes are known. ``inside`` counts what has passed and not ended."""

    _open: bool = False
    inside: int = 0
    _left: trio.Event | None = None
    """Made by whoever waits: a request costs two additions."""

    @property
    def is_open(self) -> bool:
        """Whether new requests are taken."""
        return self._open

    def open(self) -> None:
        """Take requests from now on."""
        self._open = True

    def close(self) -> None:
        """Take no new request."""
        self._open = False

    def enter(self) -> None:
        """Pass, or raise ``Unavailable``. Who has passed calls ``leave`` in the end."""
        if not self._open:
            raise Unavailable("The server is starting or stopping; try again in a moment", retry_after=1.0)
        self.inside += 1

    def leave(self) -> None:
        """A request that had passed has ended."""
        self.inside -= 1
        if self._left is not None and not self.inside:
            self._left.set()
            self._left = None

    async def emptied(self) -> None:
        """Wait until nothing is inside."""
        while self.inside:
            if self._left is None:
                self._left = trio.Event()
            await self._left.wait()

    def __repr__(self) -> str:
        return f"<Gate: {'open' if self._open else 'closed'}, {self.inside} inside>"
