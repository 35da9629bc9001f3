"""Keeps the provider's document: fetched in the background again and again until it is there, and now and then anew."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any

import attrs
import trio

from gpustack.errors import Invalid, Unavailable
from gpustack.nursery.wake import Latest, Wake
from gpustack.remote.http import BadReply, RemoteError

from .document import ProviderDocument, read_provider_document
from .exchange import fetch_json

log = logging.getLogger(__name__)

_WELL_KNOWN = "/.well-known/openid-configuration"
_EVERY = 6 * 3600.0
_FIRST_WAIT, _LONGEST_WAIT = 1.0, 60.0
_LARGEST = 256 << 10
_WITHIN = 10.0


@attrs.define(eq=False, repr=False)
class Discovery:
    """Owns the document of ``issuer``. ``given`` is one to use in place of what the issuer publishes."""

    issuer: str
    _given: Mapping[str, Any] | None = None
    _known: Latest[ProviderDocument | None] = attrs.field(factory=lambda: Latest(None))
    _asked: Wake = attrs.field(factory=Wake)
    _fault: str = "nobody has asked it yet"
    name: str = "oidc-discovery"

    async def run(self, *, task_status: trio.TaskStatus[None]) -> None:
        task_status.started()  # a provider that is away must not keep the server from starting
        wait = _FIRST_WAIT
        while True:
            if await self.look():
                wait = _FIRST_WAIT
                await trio.sleep(_EVERY)
            else:
                # Somebody who wants to sign in now is worth a look, but not more than one in a second.
                await trio.sleep(min(wait, _FIRST_WAIT))
                await self._asked.wait(wait)
                wait = min(wait * 2, _LONGEST_WAIT)

    async def look(self) -> bool:
        """Ask the provider once, for a bounded time; whether it gave a good document. A former one stays."""
        try:
            told = self._given if self._given is not None else await self._fetch()
            found = read_provider_document(told, self.issuer)
        except (RemoteError, Invalid) as error:
            if str(error) != self._fault:
                log.warning("The OIDC provider cannot be used yet: issuer=%s: %s", self.issuer, error)
            self._fault = str(error)
            return False
        if found != self._known.value:
            log.info("The OIDC provider is known: issuer=%s", self.issuer)
            self._known.set(found)
        self._fault = ""
        return True

    async def document(self, within: float = _WITHIN) -> ProviderDocument:
        """The document, waited for a moment if need be. Raises ``Unavailable`` with what is wrong."""
        if (now := self._known.value) is not None:
            return now
        self._asked.wake()
        with trio.move_on_after(within):
            _, found = await self._known.changed(self._known.revision)
            if found is not None:
                return found
        raise Unavailable(
            f"The identity provider {self.issuer} cannot be used now: {self._fault}", retry_after=10.0
        )

    @property
    def present(self) -> ProviderDocument | None:
        """The document, if it is known by now."""
        return self._known.value

    async def _fetch(self) -> Any:
        url = self.issuer.rstrip("/") + _WELL_KNOWN
        answer = await fetch_json("GET", url, limit=_LARGEST, deadline=_WITHIN)
        if answer.status != 200:
            raise BadReply(url, f"answered {answer.status}")
        return answer.document

    def __repr__(self) -> str:
        return f"<Discovery of {self.issuer}: {self._fault or 'known'}>"
