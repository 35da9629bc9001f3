"""Whether the provider that people sign in by can be used from here."""

from __future__ import annotations

import trio

from gpustack.cli.check import CheckContext, Finding, failed, good
from gpustack.config.sign_on import sign_on_kind
from gpustack.errors import GpustackError

_FIX = (
    "Set --oidc-issuer to exactly what the provider calls its issuer, and see that this machine reaches it (a proxy "
    "and certificates of your own are told by HTTPS_PROXY and SSL_CERT_FILE). The server goes on trying meanwhile."
)


async def look(context: CheckContext) -> list[Finding]:
    options = context.server_options
    if options is None or sign_on_kind(options) != "OIDC" or options.oidc_issuer is None:
        return []
    from gpustack.identity.oidc.discovery import Discovery
    from gpustack.identity.oidc.provider_keys import ProviderKeys

    try:
        document = await Discovery(
            options.oidc_issuer, trio.current_time, options.openid_configuration
        ).document()
        keys = await ProviderKeys(trio.current_time).of(None, document.jwks_uri)
    except GpustackError as error:
        return [failed(str(error), _FIX)]
    if not keys:
        return [failed(f"the identity provider {options.oidc_issuer} publishes no key for signatures", _FIX)]
    return [good(f"people can sign in at {options.oidc_issuer}")]
