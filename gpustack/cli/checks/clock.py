"""Whether this machine's clock is right: certificates, keys and records bear times."""

from __future__ import annotations

from datetime import UTC, datetime
from email.utils import parsedate_to_datetime

import trio

from gpustack.cli.check import CheckContext, Finding, failed, good, note
from gpustack.cli.session import ServerSession
from gpustack.errors import GpustackError

_SKEW = 5.0
_BUILT = datetime(2025, 1, 1, tzinfo=UTC)
_FIX = "Turn time synchronisation on (timedatectl set-ntp true), on this machine and the server's."
_SYNCED = "/run/systemd/timesync/synchronized"


async def look(context: CheckContext) -> list[Finding]:
    now = datetime.now(UTC)
    if now < _BUILT:
        return [failed(f"the clock says {now:%Y-%m-%d}, which is before this program was written", _FIX)]
    skew = await _skew(context)
    if skew is not None and abs(skew) > _SKEW:
        side = "behind" if skew > 0 else "ahead of"
        return [failed(f"the clock is {abs(skew):.0f} s {side} the server's", _FIX)]
    if skew is not None and context.address is not None and not context.address.is_loopback:
        return [good("the clock agrees with the server's")]
    if await trio.Path(_SYNCED).exists():
        return [good(f"the clock says {now:%Y-%m-%d %H:%M} UTC and is synchronised")]
    return [note(f"the clock says {now:%Y-%m-%d %H:%M} UTC; whether it is synchronised is not known")]


async def _skew(context: CheckContext) -> float | None:
    """Seconds that the server's clock is ahead of ours, exact to about one; ``None`` if unknown."""
    if context.address is None:
        return None
    try:
        _, headers, _ = await ServerSession(context.address).talk(lambda client: client.head("/healthz"))
        then = parsedate_to_datetime(headers["date"])
    except (GpustackError, KeyError, ValueError):
        return None
    return (then - datetime.now(UTC)).total_seconds()
