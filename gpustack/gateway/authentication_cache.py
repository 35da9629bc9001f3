"""Remembers for a moment whom an API key has let in: of two requests of a client the second is not looked at anew."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from operator import is_
from typing import Final

import attrs
import trio

from gpustack.domain.access import AuthMethod, Principal
from gpustack.http1.exchange import Exchange
from gpustack.identity.credentials import API_KEY

_FOR: Final = 1.0
_MOST: Final = 1024

Authenticate = Callable[[Exchange], Awaitable[Principal]]


@attrs.define(eq=False, repr=False)
class AuthenticationCache:
    """Asks ``authenticate`` and remembers what it said of an API key, and of nothing else.

    What is remembered holds as long as nobody has written to the tables of people and keys, so a key that is deleted
    ends at once, and for one second, so a key that expires ends within that.
    """

    _authenticate: Authenticate
    _tables: Callable[[], tuple[object, ...]]
    """The tables as they are now: the same objects as long as nothing in them has changed."""
    _as_of: tuple[object, ...] = ()
    _known: dict[bytes, tuple[Principal, float]] = attrs.field(factory=dict)

    async def __call__(self, exchange: Exchange) -> Principal:
        """Who asks. Raises what ``authenticate`` raises."""
        tables = self._tables()
        if not _same(tables, self._as_of):
            self._as_of = tables
            self._known.clear()
        given = exchange.head.get(b"authorization")
        if given is None:
            api_key = exchange.head.get(API_KEY)
            if api_key is None:
                return await self._authenticate(exchange)
            given = b"Bearer " + api_key  # what it is taken for
        now = trio.current_time()
        known = self._known.get(given)
        if known is not None and known[1] > now:
            return known[0]
        principal = await self._authenticate(exchange)
        if principal.means is AuthMethod.KEY and _same(tables, self._as_of):
            if len(self._known) >= _MOST:
                self._known.clear()
            self._known[given] = (principal, now + _FOR)
        return principal

    def __repr__(self) -> str:
        return f"<Admission: {len(self._known)} keys known>"


def _same(one: tuple[object, ...], other: tuple[object, ...]) -> bool:
    return len(one) == len(other) and all(map(is_, one, other))
