"""How full and how busy the GPUs of a cluster are, and which instances hold them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from gpustack.cli import phrase
from gpustack.cli.lookup import GPUS, INSTANCES, members_of
from gpustack.cli.session import Doc
from gpustack.errors import Forbidden
from gpustack.remote.admin_client import AdminClient
from gpustack.text import counted

HOT, WARM = 90.0, 80.0
"""Degrees Celsius: drivers slow GPUs down at about the first."""
_MARKS, _ASCII = ("█", "▓", "░", "·"), ("#", "x", "-", ".")
"""Of a bar: used by our engines, used by other programs, claimed and not used, free."""


async def gpus_of(client: AdminClient) -> list[Doc]:
    """The GPUs of all workers in the order of their names, each with the names of the ``instances`` that claim some of
    its memory; ``None`` where the caller may not know them."""
    gpus = await client.all(GPUS)
    try:
        holders = holders_of(await client.all(INSTANCES))
    except Forbidden:
        holders = None
    found = []
    for gpu in sorted(gpus, key=place_of):
        held = None if holders is None else holders.get((gpu.get("worker_id"), gpu.get("index")), [])
        found.append({**gpu, "instances": held})
    return found


def place_of(gpu: Doc) -> tuple[str, int]:
    """Worker, and number there."""
    return str(gpu.get("worker_name")), int(gpu.get("index") or 0)


def holders_of(instances: Iterable[Doc]) -> Mapping[tuple[Any, Any], list[str]]:
    """By worker and number of a GPU, the names of the instances that have a claim on it."""
    found: dict[tuple[Any, Any], list[str]] = {}
    for one in sorted(instances, key=lambda one: str(one.get("name"))):
        for place in _places(one):
            found.setdefault(place, []).append(str(one.get("name")))
    return found


def _places(instance: Doc) -> Iterator[tuple[Any, Any]]:
    for member in members_of(instance):
        for index in member.get("gpu_indexes") or ():
            yield member.get("worker_id"), index


def free(memory: Doc) -> int | None:
    """Bytes that nobody has claimed, or uses without a claim; ``None`` while the size is unknown."""
    total = memory.get("total")
    if not isinstance(total, int):
        return None
    return max(total - sum(memory.get(name) or 0 for name in ("allocated", "foreign", "overrun")), 0)


def bar(memory: Doc, width: int, *, utf8: bool = True) -> str:
    """A GPU's memory as a bar: used by our engines, by other programs, claimed and not used, free."""
    total = memory.get("total")
    if not isinstance(total, int) or total <= 0:
        return "?" * width
    foreign = memory.get("foreign") or 0
    ours = max((memory.get("used") or 0) - foreign, 0)
    claimed = max((memory.get("allocated") or 0) - ours, 0)
    text, upto = "", 0
    for mark, size in zip(_MARKS if utf8 else _ASCII, (ours, foreign, claimed, total), strict=True):
        # Whole cells up to here, so that rounding does not add up.
        upto = min(upto + size, total)
        text += mark * (round(width * upto / total) - len(text))
    return text


def legend(*, utf8: bool = True) -> str:
    """What the marks of a bar mean."""
    ours, foreign, claimed, left = _MARKS if utf8 else _ASCII
    return f"{ours} used  {foreign} used by others  {claimed} claimed, not used  {left} free"


def utilisation(gpu: Doc) -> float | None:
    """Percent of the time that it computes; ``None`` if unknown."""
    rate = (gpu.get("core") or {}).get("utilization_rate")
    return float(rate) if isinstance(rate, int | float) else None


def percent(rate: float | None) -> str:
    return "-" if rate is None else f"{rate:.0f} %"


def temperature(gpu: Doc) -> tuple[str, str | None]:
    """It as text, and its colour."""
    degrees = gpu.get("temperature")
    if not isinstance(degrees, int | float):
        return "-", None
    return f"{degrees:.0f} °C", "red" if degrees >= HOT else "yellow" if degrees >= WARM else None


def sums(gpus: Sequence[Doc]) -> str:
    """All of them in a line."""
    memories = [gpu.get("memory") or {} for gpu in gpus]
    known = [memory for memory in memories if isinstance(memory.get("total"), int)]
    total = sum(memory["total"] for memory in known)
    claimed = sum(memory.get("allocated") or 0 for memory in known)
    used = sum(memory.get("used") or 0 for memory in known)
    workers = len({gpu.get("worker_id") for gpu in gpus})
    rates = [rate for gpu in gpus if (rate := utilisation(gpu)) is not None]
    busy = f", {sum(rates) / len(rates):.0f} % busy" if rates else ""
    counts = f"{counted(len(gpus), 'GPU')} on {counted(workers, 'worker')}"
    return f"{counts}: {phrase.part(claimed, total)} claimed, {phrase.size(used)} used{busy}"
