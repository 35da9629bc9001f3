"""Fetches what the provider publishes: its discovery document, kept and fetched again in the background."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Mapping
from typing import Any

import attrs
import trio

from gpustack.errors import Invalid, Unavailable
from gpustack.nursery.quarantine import Quarantine
from gpustack.remote.http import BadResponse, RemoteError, open_client_aside
from gpustack.remote.redirect import REDIRECTS

from .provider_document import ProviderDocument, read_provider_document

log = logging.getLogger(__name__)

_WELL_KNOWN = "/.well-known/openid-configuration"
_EVERY = 6 * 3600.0
_FIRST_WAIT, _LONGEST_WAIT = 1.0, 60.0
_PAUSE = 1.0
"""Seconds between two attempts, however many people want to sign in."""
_SHOWN = 300
_LARGEST = 256 << 10
_WITHIN = 10.0


@attrs.define(eq=False, repr=False)
class Discovery:
    """Owns the discovery document of ``issuer``. ``given`` is used in place of what the issuer publishes.

    ``clock`` is monotonic; ``within`` is the seconds that an answer may take.
    """

    issuer: str
    _clock: Callable[[], float]
    _given: Mapping[str, Any] | None = None
    _within: float = _WITHIN
    present: ProviderDocument | None = None
    """The document, once it is known. It stays when it cannot be fetched again."""
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
        """Fetch the document, in bounded time; whether it is valid."""
        # A lock over an await: of all who want to sign in, one fetches, and all get its result.
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
        """The document, fetched now if it is not known. Raises ``Unavailable`` with what is wrong."""
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


@attrs.frozen
class JsonAnswer:
    """An answer of the provider: its status and JSON."""

    status: int
    document: Any = attrs.field(repr=False)


async def fetch_json(
    method: str,
    url: str,
    *,
    headers: Mapping[str, str] | None = None,
    body: bytes | None = None,
    limit: int,
    deadline: float,
) -> JsonAnswer:
    """Send a request and read the JSON of the answer: at most ``limit`` bytes in ``deadline`` seconds.

    Raises ``RemoteError``, also for a redirect: secrets must not follow it.
    """
    async with await open_client_aside() as client:
        answer = await client.request(
            method,
            url,
            headers={"accept": "application/json", **(headers or {})},
            body=body,
            limit=limit,
            deadline=deadline,
        )
    if answer.status in REDIRECTS:
        raise BadResponse(url, f"answered {answer.status}: a redirect, which is not followed here")
    return JsonAnswer(answer.status, answer.json())


def said(error: object, description: object) -> str:
    """The error that a provider reports, as it may be shown: bounded and printable."""
    texts = [text for text in (error, description) if isinstance(text, str) and text.strip()]
    shown = ": ".join(" ".join(text[:_SHOWN].split()) for text in texts)
    return "".join(char if char.isprintable() else "?" for char in shown) or "nothing more"
