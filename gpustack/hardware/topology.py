"""How the devices of a machine are joined, gathered pair by pair as vendors tell it."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping

import attrs

from gpustack.domain.device import DeviceLink, LinkKind


@attrs.define(eq=False)
class Topology:
    """The nearest way between each two devices, by their indexes."""

    _ways: dict[int, dict[int, tuple[LinkKind, int | None]]] = attrs.field(factory=dict)

    def join(self, first: int, second: int, kind: LinkKind, count: int | None = None) -> None:
        """Note a way between two devices. Of several ways the nearest stays."""
        for one, other in ((first, second), (second, first)):
            ways = self._ways.setdefault(one, {})
            known = ways.get(other)
            if first != second and (known is None or kind.distance < known[0].distance):
                ways[other] = (kind, count)

    def links(self, index: int) -> tuple[DeviceLink, ...]:
        """What is known of one device."""
        found: dict[tuple[LinkKind, int | None], list[int]] = {}
        for other, way in sorted(self._ways.get(index, {}).items()):
            found.setdefault(way, []).append(other)
        nearest = sorted(found, key=lambda way: (way[0].distance, -(way[1] or 0)))
        return tuple(
            DeviceLink(kind=kind, indexes=tuple(found[kind, count]), count=count) for kind, count in nearest
        )


_WORDS: Mapping[str, LinkKind] = {
    "PIX": LinkKind.SWITCH,
    "PXB": LinkKind.SWITCHES,
    "PHB": LinkKind.BRIDGE,
    "NODE": LinkKind.NODE,
    "SYS": LinkKind.SYSTEM,
}
_FABRICS = re.compile(r"(NV|MX|ML|HCCS|SIO|XGMI|XL|ICN)(\d*)")
"""NVLink, MetaXLink, HCCS between and SIO within Ascend cards, XGMI, Xe Link, ICN of T-Head; and their number."""
_MOST_COLUMNS = 1024


def matrix(output: str, prefix: str, index: Callable[[int], int | None] = lambda place: place) -> Topology:
    """The table that ``topo -m`` of many vendors prints: a row and a column for each device, named GPU0, NPU1 …

    ``index`` gives the index of the device with a number; ``None`` for one that is not known.
    """
    topology = Topology()
    name = re.compile(rf"{prefix}(\d{{1,5}})$", re.IGNORECASE)
    columns: list[int | None] = []
    for line in output.splitlines():
        words = line.split()[:_MOST_COLUMNS]
        found = [name.match(word) for word in words]
        if len(words) > 0 and found[0] and (len(words) == 1 or found[1]):
            columns = [int(one[1]) if one else None for one in found]
        elif words and found[0]:
            for column, word in zip(columns, words[1:], strict=False):
                _note(topology, index(int(found[0][1])), None if column is None else index(column), word)
    return topology


def _note(topology: Topology, first: int | None, second: int | None, word: str) -> None:
    if first is None or second is None:
        return
    fabric = _FABRICS.match(word)
    if fabric is not None:
        topology.join(first, second, LinkKind.FABRIC, int(fabric[2]) if fabric[2] else None)
    elif word in _WORDS:
        topology.join(first, second, _WORDS[word])
