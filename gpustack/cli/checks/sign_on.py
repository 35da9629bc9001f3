"""Whether the provider that people sign in by can be used from here."""

from __future__ import annotations

from datetime import UTC, datetime

import trio

from gpustack.cli.check import CheckContext, Finding, failed, good
from gpustack.config.sign_on import sign_on_kind
from gpustack.identity.sign_on_trial import try_sign_on

_FIX = (
    "Set --oidc-issuer to exactly what the provider calls its issuer, and see that this machine reaches it (a proxy "
    "and certificates of your own are told by HTTPS_PROXY and SSL_CERT_FILE). The server goes on trying meanwhile."
)


async def look(context: CheckContext) -> list[Finding]:
    options = context.server_options
    if options is None or sign_on_kind(options) != "OIDC" or options.oidc_issuer is None:
        return []
    trial = await try_sign_on(options, None, monotonic=trio.current_time, now=lambda: datetime.now(UTC))
    if trial.fault is not None:
        return [failed(trial.fault, _FIX)]
    return [good(f"people can sign in at {options.oidc_issuer}")]
