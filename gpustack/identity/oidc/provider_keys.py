"""Keeps the provider's public keys, and fetches them again when they have changed."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import attrs
import trio
from joserfc.errors import JoseError
from joserfc.jwk import ECKey, OKPKey, RSAKey

from gpustack.remote.http import BadResponse, RemoteError

from .discovery import fetch_json

PublicKey = RSAKey | ECKey | OKPKey
_KINDS: Mapping[str, type[RSAKey] | type[ECKey] | type[OKPKey]] = {"RSA": RSAKey, "EC": ECKey, "OKP": OKPKey}

_LARGEST = 512 << 10
_MOST = 100
_WITHIN = 10.0
_GOOD_FOR = 3600.0
_PAUSE = 10.0
"""Seconds between two fetches for unknown key ids: forged ones must not cause a request each."""

_AFTER_FAILURE = 1.0


@attrs.define(eq=False, repr=False)
class ProviderKeys:
    """Owns the key set as last fetched. ``clock`` is monotonic."""

    _clock: Callable[[], float]
    _within: float = _WITHIN
    _keys: tuple[PublicKey, ...] = ()
    _fetched_at: float | None = None
    _fetched_from: str = ""
    _failed_at: float = -math.inf
    _fetching: trio.Lock = attrs.field(factory=trio.Lock)

    async def of(self, kid: str | None, url: str) -> Sequence[PublicKey]:
        """The keys with that id, or all keys without one.

        They are fetched from ``url`` once an hour, and once more for an unknown id. Raises ``RemoteError``.
        """
        for age in (_GOOD_FOR, _PAUSE):
            if self._is_older(age, url):
                await self._fetch(url, age)
            if found := [key for key in self._keys if kid is None or key.kid == kid]:
                return found
        return ()

    def _is_older(self, age: float, url: str) -> bool:
        return (
            self._fetched_at is None or self._fetched_from != url or self._clock() - self._fetched_at >= age
        )

    async def _fetch(self, url: str, age: float) -> None:
        # A lock over an await, so that one fetch serves all who wait: also when it fails, they do not repeat it.
        async with self._fetching:
            if not self._is_older(age, url):
                return
            if self._clock() - self._failed_at < _AFTER_FAILURE:
                raise BadResponse(url, "did not give its keys a moment ago")
            try:
                answer = await fetch_json("GET", url, limit=_LARGEST, deadline=self._within)
                if answer.status != 200:
                    raise BadResponse(url, f"answered {answer.status}")
                self._keys = read_keys(answer.document, url)
            except RemoteError:
                self._failed_at = self._clock()
                raise
            self._fetched_at, self._fetched_from = self._clock(), url

    def __repr__(self) -> str:
        return f"<ProviderKeys: {len(self._keys)}>"


def read_keys(told: Any, url: str) -> tuple[PublicKey, ...]:
    """The public keys for signatures in a JWK set; other and unreadable keys are left out.

    Raises ``BadResponse`` when it is no key set.
    """
    listed = told.get("keys") if isinstance(told, dict) else None
    if not isinstance(listed, list):
        raise BadResponse(url, "answered with no key set")
    found: list[PublicKey] = []
    for one in listed[:_MOST]:
        if not isinstance(one, dict) or one.get("use", "sig") != "sig":
            continue
        # No symmetric keys: one that is published protects nothing.
        kind = _KINDS.get(str(one.get("kty")))
        try:
            if kind is not None:
                found.append(kind.import_key(one))
        except (JoseError, ValueError, TypeError, KeyError):
            continue
    return tuple(found)
