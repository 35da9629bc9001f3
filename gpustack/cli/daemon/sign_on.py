"""Sign-in through an identity provider (OIDC or SAML), as the options say."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from importlib import import_module

import attrs

from gpustack.api.context import SignOn
from gpustack.config.options import Options
from gpustack.config.sign_on import sign_on_kind
from gpustack.identity.person import AttributeNames
from gpustack.nursery.service import Service


@attrs.frozen
class SignOnSetup:
    """What the API is told of the identity provider, and the services that run for it."""

    sign_on: SignOn
    services: Sequence[Service] = ()

    @classmethod
    def of(cls, options: Options, *, monotonic: Callable[[], float]) -> SignOnSetup:
        """Built from options that were checked."""
        sign_on = SignOn(admin_groups=frozenset(options.external_auth_admin_groups) or None)
        kind = sign_on_kind(options)
        if kind == "OIDC":
            return _oidc(options, sign_on, monotonic)
        if kind == "SAML":
            from gpustack.identity.saml.provider import SamlProvider

            return cls(attrs.evolve(sign_on, provider=SamlProvider.of(options)))
        return cls(sign_on)


def import_sign_on(options: Options) -> None:
    """Import what the identity provider needs: that takes long, so do it in a thread.

    Raises ``Invalid`` for missing packages and unusable certificates, so that a start fails before anything is open.
    """
    kind = sign_on_kind(options)
    if kind == "OIDC":
        import_module("gpustack.identity.oidc.provider")
    if kind == "SAML":
        import_module("gpustack.identity.saml.provider").SamlProvider.of(options)


def _oidc(options: Options, sign_on: SignOn, monotonic: Callable[[], float]) -> SignOnSetup:
    from gpustack.identity.oidc.discovery import Discovery
    from gpustack.identity.oidc.provider import OidcClient, OidcProvider
    from gpustack.identity.oidc.provider_keys import ProviderKeys

    client = OidcClient(
        id=options.oidc_client_id or "",
        secret=options.oidc_client_secret,
        redirect_uri=options.oidc_redirect_uri or "",
    )
    discovery = Discovery(options.oidc_issuer or "", monotonic, options.openid_configuration)
    provider = OidcProvider(client, discovery, ProviderKeys(monotonic), AttributeNames.of(options))
    return SignOnSetup(attrs.evolve(sign_on, provider=provider), (discovery,))
