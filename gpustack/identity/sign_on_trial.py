"""Tries whether the identity provider of the options, or another one, can be used from here."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from typing import Any

import attrs

from gpustack.config.options import Options
from gpustack.config.sign_on import SignOnKind, sign_on_kind
from gpustack.errors import GpustackError, Invalid
from gpustack.nursery.limiter import threads

_THREADS = threads("sign-on trials", 1)


@attrs.frozen(kw_only=True)
class SignOnTrial:
    """What came out. ``kind`` is ``None`` where no provider is configured; ``fault`` is what is wrong, in a sentence;
    ``facts`` what was found, a sentence each."""

    kind: SignOnKind | None
    fault: str | None = None
    facts: tuple[str, ...] = ()


async def try_sign_on(
    options: Options, issuer: str | None, *, monotonic: Callable[[], float], now: Callable[[], datetime]
) -> SignOnTrial:
    """Ask the OIDC provider for what it tells of itself and for its keys, or read the certificates of the SAML one.
    ``issuer`` is another OIDC provider to try. Takes some seconds at most; cancellable."""
    kind = "OIDC" if issuer is not None else sign_on_kind(options)
    if kind is None:
        return SignOnTrial(
            kind=None, fault="No identity provider is configured (--oidc-issuer or --saml-idp-server-url)"
        )
    if kind == "SAML":
        return await _THREADS.run(_saml, options, now())
    given = None if issuer is not None else options.openid_configuration
    return await _oidc(issuer or options.oidc_issuer or "", given, monotonic)


async def _oidc(issuer: str, given: Mapping[str, Any] | None, monotonic: Callable[[], float]) -> SignOnTrial:
    # Importing these is slow, and needed only where somebody signs in so.
    from gpustack.identity.oidc.discovery import Discovery
    from gpustack.identity.oidc.provider_keys import ProviderKeys

    try:
        document = await Discovery(issuer, monotonic, given).document()
        keys = await ProviderKeys(monotonic).of(None, document.jwks_uri)
    except GpustackError as error:
        return SignOnTrial(kind="OIDC", fault=str(error))
    if not keys:
        return SignOnTrial(
            kind="OIDC", fault=f"The identity provider {issuer} publishes no key for signatures"
        )
    more = () if document.end_session_endpoint is None else ("It can end its own session at logout",)
    return SignOnTrial(
        kind="OIDC",
        facts=(
            f"The issuer is {document.issuer}",
            f"People sign in at {document.authorization_endpoint}",
            f"It publishes {len(keys)} keys for signatures ({', '.join(document.algorithms)})",
            *more,
        ),
    )


def _saml(options: Options, now: datetime) -> SignOnTrial:
    """Blocking."""
    from cryptography import x509

    from gpustack.identity.saml.provider import SamlProvider

    try:
        settings = SamlProvider.of(options).settings
    except Invalid as error:
        return SignOnTrial(kind="SAML", fault=str(error))
    certificates = [x509.load_pem_x509_certificate(text.encode()) for text in settings.idp_certificates]
    last = max(one.not_valid_after_utc for one in certificates)
    if last < now.astimezone(UTC):
        return SignOnTrial(
            kind="SAML", fault=f"The certificate in saml_idp_x509_cert was valid until {last:%Y-%m-%d} only"
        )
    return SignOnTrial(
        kind="SAML",
        facts=(
            f"People sign in at {settings.idp_url}",
            f"The provider calls itself {settings.idp_entity_id}",
            f"Its certificate is valid until {last:%Y-%m-%d}",
            f"It sends its answers to {settings.acs_url}",
            "It learns of this server at /auth/saml/metadata",
        ),
    )
