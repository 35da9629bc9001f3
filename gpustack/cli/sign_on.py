"""The other party that people sign in by, as the options say."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import datetime
from importlib import import_module

import attrs

from gpustack.api.context import SignOn
from gpustack.config.options import Options
from gpustack.config.sign_on import sign_on_kind
from gpustack.identity.person import AttributeNames
from gpustack.nursery.service import Service


@attrs.frozen
class SignOnSetup:
    """What the API is told of the party, and what runs for it."""

    sign_on: SignOn
    services: Sequence[Service] = ()


def import_sign_on(options: Options) -> None:
    """Import what the party needs: that takes long, so do it in a thread.

    Raises ``Invalid`` where packages are missing, and for certificates that are none: before anything is opened.
    """
    kind = sign_on_kind(options)
    if kind == "OIDC":
        import_module("gpustack.identity.oidc.provider")
    if kind == "SAML":
        import_module("gpustack.identity.saml").Saml.of(options)


def sign_on_part(
    options: Options, *, clock: Callable[[], datetime], monotonic: Callable[[], float]
) -> SignOnSetup:
    """Built from options that were found good; ``clock`` is the wall clock."""
    sign_on = SignOn(
        naming=naming_of(options), admin_groups=frozenset(options.external_auth_admin_groups) or None
    )
    kind = sign_on_kind(options)
    if kind == "OIDC":
        return _oidc(options, sign_on, clock, monotonic)
    if kind == "SAML":
        from gpustack.identity.saml import SamlProvider

        return SignOnSetup(attrs.evolve(sign_on, party=SamlProvider.of(options)))
    return SignOnSetup(sign_on)


def naming_of(options: Options) -> AttributeNames:
    """Under which names the party tells what."""
    return AttributeNames(
        username=options.external_auth_name,
        full_name=options.external_auth_full_name,
        avatar_url=options.external_auth_avatar_url,
        groups=options.external_auth_groups,
    )


def _oidc(
    options: Options, sign_on: SignOn, clock: Callable[[], datetime], monotonic: Callable[[], float]
) -> SignOnSetup:
    from gpustack.identity.oidc.discovery import Discovery
    from gpustack.identity.oidc.provider import OidcClient, OidcProvider
    from gpustack.identity.oidc.provider_keys import ProviderKeys

    client = OidcClient(
        id=options.oidc_client_id or "",
        secret=options.oidc_client_secret,
        redirect_uri=options.oidc_redirect_uri or "",
    )
    discovery = Discovery(options.oidc_issuer or "", monotonic, options.openid_configuration)
    party = OidcProvider(client, discovery, ProviderKeys(monotonic), sign_on.naming, clock)
    return SignOnSetup(attrs.evolve(sign_on, party=party), (discovery,))
