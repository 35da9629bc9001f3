"""Sign-in by SAML: the one door to it. Only this package knows the toolkit, so that another may take its place."""

from __future__ import annotations

from datetime import datetime
from functools import partial
from typing import Any

import attrs

from gpustack.config.options import Options
from gpustack.domain.access import Session, UserSource
from gpustack.errors import Invalid
from gpustack.nursery.limiter import threads
from gpustack.text import said_by

from .assertion import Assertion
from .response import verify
from .settings import SamlSettings
from .toolkit import toolkit

__all__ = ["Assertion", "SamlProvider", "SamlSettings"]

# 20 ms of work each, and anybody may send one: a flood of them takes two threads and no more.
_THREADS = threads("saml", 2)


@attrs.frozen(kw_only=True)
class SamlProvider:
    """One identity provider, and us as it knows us."""

    settings: SamlSettings
    _written: Any = attrs.field(repr=False)
    """The toolkit's settings for what it writes."""
    _read: Any = attrs.field(repr=False)
    """And for what it compares."""
    source: UserSource = UserSource.SAML

    @classmethod
    def of(cls, options: Options) -> SamlProvider:
        """Made at start, in a thread. Raises ``Invalid`` for certificates that are none, and without the packages."""
        tools, settings = toolkit(), SamlSettings.of(options)
        try:
            return cls(
                settings=settings,
                written=tools.Settings(settings.as_dict(escaped=True)),
                read=tools.Settings(settings.as_dict()),
            )
        except tools.Error as error:
            raise Invalid(f"The SAML options are not accepted by the toolkit: {said_by(error)}") from error

    def logout_url(self, session: Session) -> str | None:
        """None: a login ends here alone, and not at the provider."""
        return None

    async def request(self) -> tuple[str, str]:
        """A request to sign somebody in: its id, and itself as it travels, deflated and in base64."""
        return await _THREADS.run(self._request)

    async def redirect(self, request: str, state: str) -> str:
        """Where a browser goes with a request, signed if we have a key; the answer brings ``state`` back."""
        return await _THREADS.run(self._redirect, request, state)

    async def metadata(self) -> str:
        """The document that tells a provider who we are."""
        return await _THREADS.run(self._metadata)

    async def verify(self, answer: str, *, request_id: str, now: datetime) -> Assertion:
        """What an answer to that request proves; see ``response.verify`` for what it raises."""
        check = partial(verify, self.settings, self._read, answer, request_id=request_id, now=now)
        return await _THREADS.run(check)

    def _request(self) -> tuple[str, str]:
        made = toolkit().Request(self._written)
        return made.get_id(), made.get_request()

    def _redirect(self, request: str, state: str) -> str:
        tools, parameters = toolkit(), {"SAMLRequest": request, "RelayState": state}
        if self.settings.security["authnRequestsSigned"]:
            signer = tools.Auth({}, self._read)
            signer.add_request_signature(parameters, self.settings.security["signatureAlgorithm"])
        url: str = tools.Utils.redirect(self.settings.idp_url, parameters)
        return url

    def _metadata(self) -> str:
        made = self._written.get_sp_metadata()
        return made.decode() if isinstance(made, bytes) else made
