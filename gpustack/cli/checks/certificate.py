"""Whether the certificate that a server here would show is valid, and for how long still."""

from __future__ import annotations

from datetime import UTC, datetime

from gpustack.cli.check import CheckContext, Finding, failed, good, note
from gpustack.http1.certificate import spans
from gpustack.policy.troubles.server import RENEW_BEFORE

_FIX = "Put a new one in its place: a running daemon takes it within seconds, without a restart."


async def look(context: CheckContext) -> list[Finding]:
    options = context.server_options
    if options is None or options.ssl_certfile is None:
        return []
    file, now = options.ssl_certfile, datetime.now(UTC)
    found = spans(file)
    if found is None:
        return [failed(f"{file} (--ssl-certfile) holds no certificate that can be read", "Name one in PEM.")]
    begins, ends = found
    if ends <= now:
        return [failed(f"the certificate in {file} has ended on {ends:%Y-%m-%d}: clients refuse it", _FIX)]
    if begins > now:
        fix = "Look at the clock of this machine, or use another certificate until then."
        return [failed(f"the certificate in {file} holds only from {begins:%Y-%m-%d %H:%M} UTC on", fix)]
    left = f"the certificate in {file} holds until {ends:%Y-%m-%d}"
    return [note(left, _FIX) if ends - now < RENEW_BEFORE else good(left)]
