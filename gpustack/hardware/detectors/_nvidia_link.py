"""How NVIDIA cards of one machine are joined: NVLink, else what of PCIe lies between them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from itertools import combinations

import attrs

from gpustack.domain.device import LinkKind
from gpustack.hardware.detectors._nvidia_card import Card
from gpustack.hardware.topology import Topology

_LEVELS: Mapping[int, LinkKind] = {
    0: LinkKind.BOARD,
    10: LinkKind.SWITCH,
    20: LinkKind.SWITCHES,
    30: LinkKind.BRIDGE,
    40: LinkKind.NODE,
    50: LinkKind.SYSTEM,
}
"""The values of ``nvmlGpuTopologyLevel_t``."""
_P2P_BY_NVLINK = 2
_P2P_OK = 0
_MOST_LINKS = 36
_SWITCH = 2


@attrs.frozen
class _Lanes:
    """The active NVLinks of one card: how many to each other card, by bus address, and how many to NVSwitches."""

    cards: Mapping[str, int]
    switches: int


def join(cards: Mapping[int, Card]) -> Topology:
    """Ask about each pair of cards. What no card answers is not known."""
    topology = Topology()
    lanes = {index: _lanes(card) for index, card in cards.items()}
    buses = {index: _bus(card.ask("GetPciInfo")) for index, card in cards.items()}
    for (first, one), (second, other) in combinations(cards.items(), 2):
        level = one.ask("GetTopologyCommonAncestor", other.handle)
        kind = None if level is None else _LEVELS.get(level)
        if kind is not None:
            topology.join(first, second, kind)
        count = lanes[first].cards.get(buses[second] or "", 0)
        count += min(lanes[first].switches, lanes[second].switches)
        # cards on one switch may still be parted, as partitions of a fabric are
        if count and one.ask("GetP2PStatus", other.handle, _P2P_BY_NVLINK) in (
            None,
            _P2P_OK,
        ):
            topology.join(first, second, LinkKind.FABRIC, count)
    return topology


def _lanes(card: Card) -> _Lanes:
    cards: Counter[str] = Counter()
    switches = 0
    for link in range(_MOST_LINKS):
        is_active = card.ask("GetNvLinkState", link)
        if is_active is None:
            # there is no link of this number, nor of a higher one
            break
        if not is_active:
            continue
        if card.ask("GetNvLinkRemoteDeviceType", link) == _SWITCH:
            switches += 1
        elif bus := _bus(card.ask("GetNvLinkRemotePciInfo", link)):
            cards[bus] += 1
    return _Lanes(cards, switches)


def _bus(address: Mapping[str, int] | None) -> str | None:
    """Domain, bus and device, which both writings of an address have in common."""
    return None if address is None else f"{address['domain']:x}:{address['bus']:x}:{address['device']:x}"
