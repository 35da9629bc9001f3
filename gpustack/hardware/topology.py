"""How the devices of a machine are joined, gathered pair by pair as vendors tell it."""

from __future__ import annotations

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
