"""The SAML identity provider as the sign-on flow uses it. Importing it is slow: only where SAML is configured.

Outside this package nobody knows the toolkit, so that another one may take its place.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping
from datetime import datetime
from functools import partial
from typing import Any

import attrs

from gpustack.config.options import Options
from gpustack.domain.access import Session, UsedAssertion, UserSource
from gpustack.errors import Invalid
from gpustack.identity.person import AttributeNames, DefaultAttributeNames, VerifiedIdentity, read_person
from gpustack.identity.sign_in import SignInRequest
from gpustack.nursery.limiter import threads
from gpustack.text import said_by

from .assertion import Assertion
from .response import verify
from .settings import SamlSettings
from .toolkit import toolkit

DEFAULT_NAMES = DefaultAttributeNames(
    username=("email", "emailaddress", "name_id", "nameidentifier"), full_name=("displayName", "name")
)

# 20 ms of work each, and anybody may send an answer: a flood of them takes two threads and no more.
_THREADS = threads("saml", 2)


@attrs.frozen(kw_only=True)
class SamlProvider:
    """One identity provider, and this server as the provider knows it."""

    settings: SamlSettings
    _names: AttributeNames
    _written: Any = attrs.field(repr=False)
    """The toolkit's settings for the XML that it writes."""
    _read: Any = attrs.field(repr=False)
    """The toolkit's settings for the answers that it checks."""
    source: UserSource = UserSource.SAML

    @classmethod
    def of(cls, options: Options) -> SamlProvider:
        """Blocking: call it in a thread, at start. Raises ``Invalid`` for certificates that are none, and where the
        packages are missing."""
        tools, settings = toolkit(), SamlSettings.of(options)
        try:
            return cls(
                settings=settings,
                names=AttributeNames.of(options),
                written=tools.Settings(settings.as_dict(escaped=True)),
                read=tools.Settings(settings.as_dict()),
            )
        except tools.Error as error:
            raise Invalid(f"The SAML options are not accepted by the toolkit: {said_by(error)}") from error

    async def request(self, rng: random.Random) -> SignInRequest:
        """A new request; its secret is its id, and its URL signed where we have a key."""

        def make() -> tuple[str, str]:
            made = toolkit().Request(self._written)
            return made.get_id(), made.get_request()

        request_id, encoded = await _THREADS.run(make)
        return SignInRequest(request_id, partial(_THREADS.run, self._url, encoded))

    async def prove(
        self, answer: Mapping[str, str], secret: str, clock: Callable[[], datetime]
    ) -> VerifiedIdentity:
        """Whom the field ``SAMLResponse`` proves; see ``verify`` for what it raises."""
        assertion = await self.verify(answer.get("SAMLResponse", ""), request_id=secret, now=clock())
        person = read_person(
            assertion.values,
            self._names,
            DEFAULT_NAMES,
            source=UserSource.SAML,
            issuer=assertion.issuer,
            subject=assertion.subject(self._names.username),
        )
        used = UsedAssertion(assertion_hash=assertion.id_hash, expires_at=assertion.used_until)
        return VerifiedIdentity(person, assertion=used)

    async def verify(self, answer: str, *, request_id: str, now: datetime) -> Assertion:
        """What an answer to that request proves; see ``response.verify`` for what it raises."""
        check = partial(verify, self.settings, self._read, answer, request_id=request_id, now=now)
        return await _THREADS.run(check)

    async def metadata(self) -> str:
        """The XML document that describes this server to a provider."""

        def make() -> str:
            made = self._written.get_sp_metadata()
            return made.decode() if isinstance(made, bytes) else made

        return await _THREADS.run(make)

    def logout_url(self, session: Session) -> str | None:
        """``None``: a logout ends the login here alone."""
        return None

    def _url(self, request: str, state: str) -> str:
        tools, parameters = toolkit(), {"SAMLRequest": request, "RelayState": state}
        if self.settings.security["authnRequestsSigned"]:
            signer = tools.Auth({}, self._read)
            signer.add_request_signature(parameters, self.settings.security["signatureAlgorithm"])
        url: str = tools.Utils.redirect(self.settings.idp_url, parameters)
        return url
