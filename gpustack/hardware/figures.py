"""Figures and tables as vendors' tools print them, read without trust: what cannot be read is ``None``, never 0."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterator, Mapping
from typing import Any

from gpustack.domain.device import DeviceCore, DeviceMemory
from gpustack.domain.unit import GIB, KIB, MIB
from gpustack.text import printable

_NUMBER = re.compile(r"[-+]?\d+(?:\.\d+)?(?:[eE][-+]?\d{1,3})?")
_UNITS: Mapping[str, int] = {"b": 1, "kb": KIB, "kib": KIB, "mb": MIB, "mib": MIB, "gb": GIB, "gib": GIB}
"""All of these tools mean powers of 1024, whichever way they write it."""
_MOST_BYTES = 1 << 50
_LONGEST_NUMBER = 64
_UNKNOWN = frozenset({"", "-", "n/a", "na", "none", "null", "unknown", "not supported"})


def number(value: object) -> float | None:
    """The number at the start of a text like ``45.0 C``; ``None`` for ``N/A``, nothing, and what is not finite."""
    if isinstance(value, Mapping):
        # amd-smi writes {"value": 41, "unit": "C"}
        value = value.get("value")
    if isinstance(value, bool) or not isinstance(value, str | int | float):
        return None
    found = _NUMBER.match(str(value)[:_LONGEST_NUMBER].strip())
    if found is None:
        return None
    read = float(found[0])
    return read if math.isfinite(read) else None


def whole(value: object) -> int | None:
    """A number that counts something: not below 0."""
    read = number(value)
    return None if read is None or read < 0 else int(read)


def percent(value: object) -> float | None:
    """0 to 100."""
    read = number(value)
    return None if read is None or not 0 <= read <= 100 else read


def celsius(value: object) -> float | None:
    """A temperature that a card can have."""
    read = number(value)
    return None if read is None or not -60 <= read <= 250 else read


def size(value: object, unit: str) -> int | None:
    """Bytes, of a text that may name its unit itself; ``unit`` is that of a bare number."""
    read = number(value)
    if isinstance(value, Mapping):
        unit = str(value.get("unit") or unit)
    elif isinstance(value, str):
        unit = re.sub(r"[^A-Za-z]", "", value[:_LONGEST_NUMBER]) or unit
    factor = _UNITS.get(unit.lower())
    if read is None or factor is None or read < 0 or read * factor > _MOST_BYTES:
        return None
    return int(read * factor)


def memory(total: int | None, used: int | None, *, unified: bool = False) -> DeviceMemory:
    """A memory of ``total`` bytes. One of no bytes is one of which nothing is known."""
    if not total:
        return DeviceMemory(is_unified_memory=unified)
    if used is None or used > total:
        return DeviceMemory(total=total, is_unified_memory=unified)
    return DeviceMemory(
        total=total, used=used, utilization_rate=round(used / total * 100, 1), is_unified_memory=unified
    )


def cores(total: int | None, rate: float | None) -> DeviceCore | None:
    """``None`` where nothing is known of them."""
    return None if not total and rate is None else DeviceCore(total=total or None, utilization_rate=rate)


def text(value: object, limit: int = 200) -> str | None:
    """A name or version as it is shown; ``None`` for what tools write where they do not know."""
    if isinstance(value, bool) or not isinstance(value, str | int | float):
        return None
    shown = printable(str(value), limit).strip()
    return None if shown.strip("[]()").lower() in _UNKNOWN else shown


def json_in(output: str) -> Any:
    """The first JSON object or list in an output that may have warnings around it; ``None`` without one."""
    decoder = json.JSONDecoder()
    for _, found in zip(range(8), re.finditer(r"^[ \t]*([{\[])", output, re.MULTILINE), strict=False):
        try:
            return decoder.raw_decode(output, found.start(1))[0]
        except (ValueError, RecursionError):
            continue
    return None


def entry(document: object, *keys: str) -> Any:
    """What is at a path of keys; ``None`` where the document is otherwise."""
    for key in keys:
        if not isinstance(document, Mapping):
            return None
        document = document.get(key)
    return document


def csv_rows(output: str, columns: int) -> Iterator[list[str]]:
    """The lines of ``columns`` values, stripped, of an output in CSV without a head."""
    for line in output.splitlines():
        values = [value.strip() for value in line.split(",")]
        if len(values) == columns:
            yield values


def cells(line: str) -> list[str]:
    """The cells of a line of a drawn table; empty for any other line."""
    line = line.strip()
    return [cell.strip() for cell in line.strip("|").split("|")] if line.startswith("|") else []


def pairs(output: str) -> Iterator[tuple[int, str, str]]:
    """Indentation, key and value of lines like ``Product Name : MTT S80``; a heading has the value ""."""
    for line in output.splitlines():
        key, _, value = line.partition(":")
        if key.strip():
            yield len(line) - len(line.lstrip()), key.strip(), value.strip()
