"""Whether a server answers, is ready, and knows us."""

from __future__ import annotations

from gpustack.cli.check import CheckContext, CheckStatus, Finding, failed, good, note
from gpustack.cli.session import ServerAddress, ServerSession
from gpustack.remote.http import RemoteError


async def look(context: CheckContext) -> list[Finding]:
    joins = None if context.options is None else context.options.server_url
    found = (
        []
        if joins is None
        else await _healthy(ServerAddress(url=joins), "--server-url, --token and the firewall")
    )
    if context.address is None:
        return [*found, note(context.unreached)]
    address = context.address
    found += await _healthy(
        address, "GPUSTACK_SERVER_URL, and whether the server runs (its log says why not)"
    )
    if any(finding.status is CheckStatus.FAILED for finding in found):
        return found
    status, _, body = await ServerSession(address).talk(lambda client: client.head("/v1/users/me"))
    if status == 200:
        return [
            *found,
            good(
                "the server takes you for an administrator"
                if address.key is None
                else "the server knows who you are"
            ),
        ]
    if address.key is None and b"GPUSTACK_API_KEY" in body:  # with a sentence, it knows us for another user
        fix = "For more use sudo, or put an API key (gpustack keys create NAME makes one) into GPUSTACK_API_KEY."
        said = "you are another user of this machine: without a key you may use models, and not manage"
        return [*found, note(said, fix)]
    if address.key is None:
        fix = "Make a key (console, or gpustack keys create NAME with one you have) and put it in GPUSTACK_API_KEY."
        return [*found, failed("the server wants a key (it runs with --force-auth-localhost)", fix)]
    fix = "It may have expired or been deleted: make another, and put it in GPUSTACK_API_KEY."
    return [*found, failed(f"the server refuses the key in GPUSTACK_API_KEY (status {status})", fix)]


async def _healthy(address: ServerAddress, knob: str) -> list[Finding]:
    try:
        status, _, body = await ServerSession(address).talk(lambda client: client.head("/readyz"))
    except RemoteError as error:
        return [failed(str(error), f"Check {knob}.")]
    if status != 200:
        what = body.decode(errors="replace").strip()[:200]
        return [failed(f"{address.url} is not ready: {what or status}", f"Wait a little; then check {knob}.")]
    return [good(f"{address.url} answers and is ready")]
