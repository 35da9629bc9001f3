"""Keeps the provider's document: fetched in the background again and again until it is there, and now and then anew."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Mapping
from typing import Any

import attrs
import trio

from gpustack.errors import Invalid, Unavailable
from gpustack.nursery.quarantine import Quarantine
from gpustack.remote.http import BadResponse, RemoteError

from .exchange import fetch_json
from .provider_document import ProviderDocument, read_provider_document

log = logging.getLogger(__name__)

_WELL_KNOWN = "/.well-known/openid-configuration"
_EVERY = 6 * 3600.0
_FIRST_WAIT, _LONGEST_WAIT = 1.0, 60.0
_PAUSE = 1.0
"""Seconds between two tries, however many want to sign in."""
_LARGEST = 256 << 10
_WITHIN = 10.0


@attrs.define(eq=False, repr=False)
class Discovery:
    """Owns the document of ``issuer``. ``given`` is one to use in place of what the issuer publishes.

    ``clock`` is monotonic; ``within`` is how many seconds an answer may take.
    """

    issuer: str
    _clock: Callable[[], float]
    _given: Mapping[str, Any] | None = None
    _within: float = _WITHIN
    present: ProviderDocument | None = None
    """The document, if it is known by now; a former one stays when it cannot be had anew."""
    _fault: str = ""
    _looked_at: float = -math.inf
    _looking: trio.Lock = attrs.field(factory=trio.Lock)
    _faults: Quarantine = attrs.Factory(
        lambda self: Quarantine("oidc-discovery", clock=self._clock), takes_self=True
    )
    name: str = "oidc-discovery"

    async def run(self, *, task_status: trio.TaskStatus[None]) -> None:
        task_status.started()  # a provider that is away must not keep the server from starting
        wait = _FIRST_WAIT
        while True:
            known = False
            with self._faults.row("provider"):
                known = await self.look()
            if known:
                wait = _FIRST_WAIT
                await trio.sleep(_EVERY)
            else:
                await trio.sleep(wait)
                wait = min(wait * 2, _LONGEST_WAIT)

    async def look(self) -> bool:
        """Ask the provider, for a bounded time; whether it gave a good document."""
        # A lock over an await: however many want to sign in, the provider is asked once, and all hear the same.
        async with self._looking:
            if self.present is None and self._clock() - self._looked_at < _PAUSE:
                return False
            try:
                told = self._given if self._given is not None else await self._fetch()
                found = read_provider_document(told, self.issuer)
            except (RemoteError, Invalid) as error:
                if str(error) != self._fault:
                    log.warning("The OIDC provider tells nothing of use: issuer=%s: %s", self.issuer, error)
                self._fault, self._looked_at = str(error), self._clock()
                return False
            if found != self.present:
                log.info("The OIDC provider is known: issuer=%s", self.issuer)
            self.present, self._fault = found, ""
            return True

    async def document(self) -> ProviderDocument:
        """The document, asked for now if need be. Raises ``Unavailable`` with what is wrong."""
        if self.present is None:
            await self.look()
        if self.present is None:
            raise Unavailable(
                f"The identity provider {self.issuer} cannot be used now: {self._fault}", retry_after=10.0
            )
        return self.present

    async def _fetch(self) -> Any:
        url = self.issuer.rstrip("/") + _WELL_KNOWN
        answer = await fetch_json("GET", url, limit=_LARGEST, deadline=self._within)
        if answer.status != 200:
            raise BadResponse(url, f"answered {answer.status}")
        return answer.document

    def __repr__(self) -> str:
        return f"<Discovery of {self.issuer}: {self._fault or 'known'}>"
