"""Keeps the provider's public keys, and fetches them anew when it has changed them."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import attrs
import trio
from joserfc.errors import JoseError
from joserfc.jwk import ECKey, OKPKey, RSAKey

from gpustack.remote.http import BadResponse, RemoteError

from .exchange import fetch_json

PublicKey = RSAKey | ECKey | OKPKey
_KINDS: Mapping[str, type[RSAKey] | type[ECKey] | type[OKPKey]] = {"RSA": RSAKey, "EC": ECKey, "OKP": OKPKey}

_LARGEST = 512 << 10
_MOST = 100
_WITHIN = 10.0
_GOOD_FOR = 3600.0
_PAUSE = 10.0
"""Seconds between two fetches for keys nobody has seen: a forged key id must not make us ask for ever."""

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
        """The keys that may have signed under that key id; none when there is no such key.

        ``url`` is asked when it was not in the last hour, and once more for an id that is unknown. Raises
        ``RemoteError``.
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
        # A lock over an await, so that one fetch is enough for all: who has waited finds what the other fetched, and
        # does not wait as long once more where the other got nothing.
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
    """The public keys for signatures in a JWK set; what is of another kind, or cannot be read, is left out.

    Raises ``BadResponse`` when it is no key set.
    """
    listed = told.get("keys") if isinstance(told, dict) else None
    if not isinstance(listed, list):
        raise BadResponse(url, "answered with no key set")
    found: list[PublicKey] = []
    for one in listed[:_MOST]:
        if not isinstance(one, dict) or one.get("use", "sig") != "sig":
            continue
        # No symmetric keys: in a public document that is a secret that everybody knows.
        kind = _KINDS.get(str(one.get("kty")))
        try:
            if kind is not None:
                found.append(kind.import_key(one))
        except (JoseError, ValueError, TypeError, KeyError):
            continue
    return tuple(found)
