"""Kinds of GPUs by name, for workers that are only being considered: what one of each has."""

from __future__ import annotations

import re
from collections.abc import Iterable

import attrs

from .device import Device, DeviceMemory
from .unit import MIB

_BYTES = re.compile(r"([0-9]{1,6})(?:\.([0-9]{1,3}))?\s*([GT])I?B?", re.IGNORECASE)
_NOISE = re.compile(r"nvidia|geforce|tesla|amd|instinct|[^a-z0-9]")
_FORM = r"(?:sxm\d?|pcie|hbm\d?e?|\d{2,3}gb)+"
"""What the name of one kind has beside that of its chip."""


@attrs.frozen
class GpuKind:
    """One kind: ``memory`` in bytes, as its driver tells them."""

    name: str
    vendor: str
    type: str
    memory: int
    compute_capability: str | None = None

    def device(self, index: int) -> Device:
        """One of them that nothing runs on."""
        return Device(
            index=index,
            name=self.name,
            vendor=self.vendor,
            type=self.type,
            memory=DeviceMemory(total=self.memory, used=0),
            compute_capability=self.compute_capability,
        )


def _nvidia(name: str, mib: int, capability: str) -> GpuKind:
    return GpuKind(name, "NVIDIA", "cuda", mib * MIB, capability)


def _amd(name: str, mib: int) -> GpuKind:
    return GpuKind(name, "AMD", "rocm", mib * MIB)


KINDS: tuple[GpuKind, ...] = (
    _nvidia("RTX 3060", 12288, "8.6"),
    _nvidia("RTX 3080", 10240, "8.6"),
    _nvidia("RTX 3090", 24576, "8.6"),
    _nvidia("RTX 4060 Ti", 16380, "8.9"),
    _nvidia("RTX 4070", 12282, "8.9"),
    _nvidia("RTX 4080", 16376, "8.9"),
    _nvidia("RTX 4090", 24564, "8.9"),
    _nvidia("RTX 5070 Ti", 16303, "12.0"),
    _nvidia("RTX 5080", 16303, "12.0"),
    _nvidia("RTX 5090", 32607, "12.0"),
    _nvidia("RTX A4000", 16376, "8.6"),
    _nvidia("RTX A5000", 24564, "8.6"),
    _nvidia("RTX A6000", 49140, "8.6"),
    _nvidia("RTX 6000 Ada", 49140, "8.9"),
    _nvidia("T4", 15360, "7.5"),
    _nvidia("V100 16GB", 16384, "7.0"),
    _nvidia("V100 32GB", 32768, "7.0"),
    _nvidia("A10", 23028, "8.6"),
    _nvidia("A16", 15356, "8.6"),
    _nvidia("A30", 24576, "8.0"),
    _nvidia("A40", 46068, "8.6"),
    _nvidia("A100 40GB", 40960, "8.0"),
    _nvidia("A100 80GB", 81920, "8.0"),
    _nvidia("L4", 23034, "8.9"),
    _nvidia("L40", 46068, "8.9"),
    _nvidia("L40S", 46068, "8.9"),
    _nvidia("H100 80GB", 81559, "9.0"),
    _nvidia("H100 NVL", 95830, "9.0"),
    _nvidia("H200", 143771, "9.0"),
    _nvidia("GH200", 97871, "9.0"),
    _nvidia("B200", 183359, "10.0"),
    _amd("MI210", 65520),
    _amd("MI250X", 65520),
    _amd("MI300X", 196592),
    _amd("RX 7900 XTX", 24560),
    _amd("W7900", 49136),
)
"""Video memory in MiB as the tools of the vendors show it (``nvidia-smi``, ``rocm-smi``), which is a little less than
what is printed on the box; compute capabilities as NVIDIA lists them (https://developer.nvidia.com/cuda-gpus)."""


def folded(name: str) -> str:
    """A name without what people write in different ways: vendor, case, blanks and dashes."""
    return _NOISE.sub("", name.lower())


def kinds_among(devices: Iterable[Device]) -> tuple[GpuKind, ...]:
    """The kinds of devices that are there, each once; of several sizes of one name the smallest."""
    found: dict[str, GpuKind] = {}
    for one in devices:
        total = one.memory.total
        if total is None or one.memory.is_unified_memory:
            continue
        known = found.get(folded(one.name))
        if known is None or total < known.memory:
            found[folded(one.name)] = GpuKind(one.name, one.vendor, one.type, total, one.compute_capability)
    return tuple(found.values())


def kind_named(name: str, there: Iterable[GpuKind] = ()) -> GpuKind | None:
    """The kind of that name: one of those ``there`` first, then of ``KINDS``; the smallest of several that begin so
    (``A100``, ``H100``)."""
    wanted = folded(name)
    for kinds in (tuple(there), KINDS):
        same = [one for one in kinds if folded(one.name) == wanted]
        sized = [one for one in kinds if re.fullmatch(re.escape(wanted) + _FORM, folded(one.name))]
        if found := same or sized:
            return min(found, key=lambda one: one.memory)
    return None


def read_bytes(text: str) -> int | None:
    """``24GiB``, ``24 GB`` and ``1.5T`` as bytes, powers of two either way; ``None`` for anything else."""
    found = _BYTES.fullmatch(text.strip())
    if found is None:
        return None
    number = float(f"{found[1]}.{found[2] or 0}")
    return int(number * (1 << (30 if found[3].upper() == "G" else 40)))
