"""``--json`` of rocm-smi and its descendants: an object for each card, whose keys change from release to release."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any

from gpustack.domain.device import DeviceCore, DeviceMemory
from gpustack.hardware.figures import celsius, cores, entry, json_in, memory, percent, size, text
from gpustack.hardware.probe import DeviceProbe, ToolAnswer

ARGUMENTS = (
    "--showid",
    "--showproductname",
    "--showuniqueid",
    "--showmeminfo",
    "vram",
    "--showuse",
    "--showtemp",
    "--json",
)
Fields = Mapping[str, Any]


def ask(probe: DeviceProbe, tool: str) -> tuple[ToolAnswer, list[tuple[int, Fields]]]:
    """What the tool said, and the fields of each card by its number."""
    answer = probe.run(tool, *ARGUMENTS)
    return answer, list(_cards(answer.out))


def _cards(output: str) -> Iterator[tuple[int, Fields]]:
    document = json_in(output)
    for key in document if isinstance(document, Mapping) else ():
        number = re.fullmatch(r"card(\d{1,4})", str(key))
        fields = document[key]
        if number is not None and isinstance(fields, Mapping):
            yield int(number[1]), {str(name).lower(): value for name, value in fields.items()}


def is_hygon(fields: Fields) -> bool:
    """DTK has a rocm-smi too, which writes DCU or HCU where AMD's has GPU."""
    return any(key.startswith(("dcu ", "hcu ")) for key in fields)


def name_of(fields: Fields) -> str | None:
    """The first of its names that is one: some releases write a PCI id as the model."""
    for key in ("card series", "device name", "card model", "card sku"):
        name = text(fields.get(key))
        if name is not None and not name.startswith("0x"):
            return name
    return None


def unique_id(fields: Fields) -> str | None:
    """Sixteen hexadecimal digits."""
    return hexadecimal(fields.get("unique id"))


def hexadecimal(value: object) -> str | None:
    """The 16 digits of a number written as ``0x5C88007D760374F3``, in small letters; ``None`` for 0 and other texts."""
    found = re.fullmatch(r"(?:0x)?([0-9a-f]{1,16})", str(value).strip().lower())
    return None if found is None or int(found[1], 16) == 0 else found[1].zfill(16)


def memory_of(fields: Fields) -> DeviceMemory:
    """Of a card: its unit is in the key."""
    return memory(_amount(fields, "vram total memory"), _amount(fields, "vram total used memory"))


def _amount(fields: Fields, start: str) -> int | None:
    for key, value in fields.items():
        unit = re.fullmatch(rf"{start} \((\w+)\)", key)
        if unit is not None:
            return size(value, unit[1])
    return None


def core_of(fields: Fields) -> DeviceCore | None:
    """Its load; how many cores there are is not told."""
    rates = (percent(value) for key, value in fields.items() if re.fullmatch(r"(gpu|dcu|hcu) use \(%\)", key))
    return cores(None, next(rates, None))


def temperature_of(fields: Fields) -> float | None:
    """Of the hottest place of the chip that is measured."""
    for place in ("junction", "edge", "core", "memory", "mem"):
        found = celsius(fields.get(f"temperature (sensor {place}) (c)"))
        if found is not None:
            return found
    return None


def gfx_of(fields: Fields) -> str | None:
    """The compiler's name of the chip; some releases write 11.0.1 as ``gfx11001`` and 9.0.10 as ``gfx9010``."""
    found = re.fullmatch(r"gfx(9|1\d)([0-9a-f]{2,3})", str(entry(fields, "gfx version")).lower())
    if found is None:
        return None
    rest = found[2]
    if len(rest) == 3 and rest.isdigit():
        rest = f"{rest[0]}{int(rest[1:]):x}"
    return f"gfx{found[1]}{rest}"
