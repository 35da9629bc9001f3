"""Remembers for one second which principal an API key authenticated, to spare most requests the work."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Final

import attrs
import trio

from gpustack.domain.access import AuthMethod, Principal
from gpustack.domain.snapshot import Snapshot
from gpustack.http1.exchange import Exchange
from gpustack.identity.credentials import API_KEY

_SECONDS: Final = 1.0
_MAX_KEYS: Final = 1024

Authenticate = Callable[[Exchange], Awaitable[Principal]]


@attrs.define(eq=False, repr=False)
class AuthenticationCache:
    """Calls ``authenticate`` and remembers what it returned for an API key, and for no other credentials.

    An entry is dropped with the next write to the tables of users and keys, so that a deleted key ends at once, and
    after one second, so that an expired key ends within that.
    """

    _authenticate: Authenticate
    _snapshot: Callable[[], Snapshot]
    _seen: Snapshot = Snapshot()
    """With its users and keys all entries were made."""
    _known: dict[bytes, tuple[Principal, float]] = attrs.field(factory=dict)

    async def __call__(self, exchange: Exchange) -> Principal:
        """The principal of a request. Raises what ``authenticate`` raises."""
        snapshot = self._snapshot()
        if snapshot is not self._seen:
            if not _same_people(snapshot, self._seen):
                self._known.clear()
            self._seen = snapshot
        given = exchange.head.get(b"authorization")
        if given is None:
            api_key = exchange.head.get(API_KEY)
            if api_key is None:
                return await self._authenticate(exchange)
            given = b"Bearer " + api_key  # the same credentials in the other form
        now = trio.current_time()
        known = self._known.get(given)
        if known is not None and known[1] > now:
            return known[0]
        principal = await self._authenticate(exchange)
        if principal.means is AuthMethod.KEY and _same_people(snapshot, self._seen):
            if len(self._known) >= _MAX_KEYS:
                self._known.clear()
            self._known[given] = (principal, now + _SECONDS)
        return principal

    def __repr__(self) -> str:
        return f"<AuthenticationCache: {len(self._known)} keys known>"


def _same_people(one: Snapshot, other: Snapshot) -> bool:
    """A table stays the same object until somebody writes to it."""
    return one.users is other.users and one.api_keys is other.api_keys
