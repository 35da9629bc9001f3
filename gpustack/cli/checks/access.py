"""Who of this machine would manage a server here without a key."""

from __future__ import annotations

from gpustack.cli.finding import CheckContext, Finding, good
from gpustack.cli.local import local_rule


async def look(scene: CheckContext) -> list[Finding]:
    if scene.options is None or scene.loaded is None or scene.loaded.role == "worker":
        return []
    return [good(f"when you start the server, {local_rule(scene.options.force_auth_localhost)}")]
