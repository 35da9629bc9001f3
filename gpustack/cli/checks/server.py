"""Whether a server answers, is ready, and knows us."""

from __future__ import annotations

from typing import TYPE_CHECKING

from gpustack.cli.check import CheckContext, CheckStatus, Finding, failed, good, note
from gpustack.cli.session import ServerAddress, ServerSession
from gpustack.remote.http import RemoteError
from gpustack.worker.identity import load_credential

if TYPE_CHECKING:
    from gpustack.config.options import Options


async def look(context: CheckContext) -> list[Finding]:
    options = context.options
    found = [] if options is None or options.server_url is None else await _joins(options.server_url, options)
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


async def _joins(url: str, options: Options) -> list[Finding]:
    """Whether the server would let a worker of this machine in."""
    found = await _healthy(ServerAddress(url=url), "--server-url, --token and the firewall")
    if options.token is None or any(finding.status is CheckStatus.FAILED for finding in found):
        return found
    session = ServerSession(ServerAddress(url=url, key=options.token))
    try:
        status, _, _ = await session.talk(lambda client: client.head("/v1/users/me"))
    except RemoteError as error:
        return [*found, failed(str(error), "Check --server-url and the firewall.")]
    if status == 403:  # the token of the cluster is known, and reads no account
        return [*found, good("the server takes the token of this worker")]
    if status != 401:
        fix = "Check --server-url."
        return [*found, failed(f"{url} does not answer like a GPUStack server (status {status})", fix)]
    fix = "Set --token to the one of the server, which is in the file token of its data directory."
    if load_credential(options.data_dir) is not None:
        said = "the server refuses the token; this worker has joined before, and may join without it"
        return [*found, note(said, fix)]
    return [*found, failed("the server refuses the token of this worker", fix)]


async def _healthy(address: ServerAddress, knob: str) -> list[Finding]:
    try:
        status, _, body = await ServerSession(address).talk(lambda client: client.head("/readyz"))
    except RemoteError as error:
        return [failed(str(error), f"Check {knob}.")]
    if status != 200:
        what = body.decode(errors="replace").strip()[:200]
        return [failed(f"{address.url} is not ready: {what or status}", f"Wait a little; then check {knob}.")]
    return [good(f"{address.url} answers and is ready")]
