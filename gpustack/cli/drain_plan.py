"""What a drain of workers would lead to, and how far one is, as ``gpustack workers`` tells it."""

from __future__ import annotations

from collections.abc import Sequence

from gpustack.cli.lookup import WORKERS, workers_named
from gpustack.cli.phrase import one_line
from gpustack.cli.session import Doc
from gpustack.remote.admin_client import AdminClient

_LISTED = 3
_WAYS = {
    "replaced_first": "starts on {to}, then ends here",
    "ends_first": "ends here, then starts on {to}",
    "not_replaced": "ends: there are more replicas than are asked for",
}


async def plan_of(client: AdminClient, names: Sequence[str]) -> Doc:
    """What a drain of all the named workers together would lead to. Raises NotFound for a worker that there is not."""
    first, *others = await workers_named(client, names)
    query = "&".join(f"also={worker['id']}" for worker in others)
    return await client.get(f"{WORKERS}/{first['id']}/drain-plan{f'?{query}' if query else ''}")


def told(outlook: Doc) -> str:
    """It in words, a line for each instance."""
    names = ", ".join(outlook.get("workers") or ())
    steps = outlook.get("steps") or ()
    if not steps:
        return f"Nothing runs on {names}."
    stays = sum(step.get("way") == "stays" for step in steps)
    lines = [line for step in steps for line in _told(step)]
    left = (
        f"{stays} of {len(steps)} would stay, and the drain would wait for room" if stays else "All would go"
    )
    return "\n".join(
        [*lines, f"{left}. Nothing is changed; gpustack workers drain {names.replace(',', '')} does it."]
    )


def _told(step: Doc) -> list[str]:
    way = str(step.get("way"))
    if way == "stays":
        what = "goes on here"
    elif step.get("to") is None and way == "ends_first":
        what = "ends here, and finds no place"
    else:
        what = _WAYS[way].format(to=step.get("to"))
    lines = [f"{step.get('instance')}: {what}"]
    if step.get("ends"):
        lines.append(f"  for that end, of lower priority: {', '.join(step['ends'])}")
    if step.get("why"):
        lines.append(f"  {one_line(step['why'])}")
    return lines


def progress(drain: Doc) -> str:
    """``3 of 5 left, waits for m-1: pending: …``"""
    left, total, waits = drain.get("left") or [], drain.get("of"), drain.get("waits_for") or []
    if not left:
        return "nothing is left"
    count = (
        f"{len(left)} of {total} left" if total is not None and total >= len(left) else f"{len(left)} left"
    )
    if not waits:
        return count
    more = f"; and {len(waits) - _LISTED} more" if len(waits) > _LISTED else ""
    return f"{count}, waits for {'; '.join(map(one_line, waits[:_LISTED]))}{more}"
