"""Who of this machine would manage a server here without a key."""

from __future__ import annotations

from gpustack.cli.check import CheckContext, Finding, good
from gpustack.cli.local import local_rule


async def look(context: CheckContext) -> list[Finding]:
    options = context.server_options
    if options is None:
        return []
    return [good(f"when you start the server, {local_rule(options.force_auth_localhost, options.host)}")]
