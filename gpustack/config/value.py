"""The kinds of value an option can have, and how each is read from text."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import attrs

from gpustack.text import character_fault

GIB = 1024**3

_TRUE = frozenset({"true", "1", "yes", "on", "y", "t"})
_FALSE = frozenset({"false", "0", "no", "off", "n", "f"})
_DEPRECATED = {"memory": "ram", "gpu_memory": "vram"}


@attrs.frozen
class PortRange:
    """Ports from ``first`` to ``last``, both included."""

    first: int
    last: int

    def __str__(self) -> str:
        return f"{self.first}-{self.last}"

    def __len__(self) -> int:
        return self.last - self.first + 1

    def __contains__(self, port: object) -> bool:
        return isinstance(port, int) and self.first <= port <= self.last


@attrs.frozen
class SystemReservedGib:
    """Memory that the scheduler does not use, in GiB: ``ram`` of the worker, ``vram`` of each GPU."""

    ram: float = 2.0
    vram: float = 1.0

    @property
    def ram_bytes(self) -> int:
        return round(self.ram * GIB)

    @property
    def vram_bytes(self) -> int:
        return round(self.vram * GIB)

    def __str__(self) -> str:
        return json.dumps({"ram": trim(self.ram), "vram": trim(self.vram)})


def trim(number: float) -> float | int:
    """The same number, as an int where it is whole."""
    return int(number) if number == int(number) else number


def quote(value: object) -> str:
    """``value`` quoted for a sentence: on one line, and at most 80 characters."""
    shown = repr(value)
    return shown if len(shown) <= 80 else shown[:77] + "..."


def read_bool(value: Any) -> bool:
    """Read true/false, 1/0, yes/no or on/off in any case. Raise ValueError for anything else."""
    if isinstance(value, bool):
        return value
    word = str(value).strip().lower()
    if word in _TRUE or word in _FALSE:
        return word in _TRUE
    raise ValueError(f"must be true or false, not {quote(value)}")


def read_int(value: Any) -> int:
    """Read a whole number. Raise ValueError for anything else, ``True`` and ``1.0`` included."""
    if isinstance(value, int) and not isinstance(value, bool):
        return value
    if isinstance(value, str) and re.fullmatch(r"\s*[+-]?[0-9]{1,18}\s*", value):
        return int(value)
    raise ValueError(f"must be a whole number, not {quote(value)}")


def read_number(value: Any) -> float:
    """Read a finite number. Raise ValueError for anything else."""
    try:
        number = math.nan if isinstance(value, bool) else float(value)
    except (TypeError, ValueError):
        number = math.nan
    if not math.isfinite(number):
        raise ValueError(f"must be a number, not {quote(value)}")
    return number


def read_text(value: Any) -> str:
    """Read text that is not empty; numbers and truth values become text. Raise ValueError for anything else."""
    if isinstance(value, bool | int | float):
        return str(value)
    if not isinstance(value, str):
        raise ValueError("must be text")
    if not value.strip():
        raise ValueError("must not be empty")
    if fault := character_fault(value, lines=True):
        raise ValueError(fault)
    return value


def read_path(value: Any) -> Path:
    """Read a path, without looking at the file system. Raise ValueError when it is empty or not text."""
    return value if isinstance(value, Path) else Path(read_text(value))


def read_words(value: Any) -> tuple[str, ...]:
    """Read a list of texts, or text that is a JSON array or words between commas. Raise ValueError."""
    if isinstance(value, str):
        value = _json(value) if value.lstrip().startswith("[") else _split(value)
    if not isinstance(value, list | tuple):
        raise ValueError("must be a list")
    if any(not isinstance(word, str | int | float) or isinstance(word, bool) for word in value):
        raise ValueError("must be a list of texts")
    words = tuple(str(word) for word in value)
    for fault in filter(None, map(character_fault, words)):
        raise ValueError(f"{fault} in one of its words")
    return words


def read_named_path(word: str) -> tuple[str, Path]:
    """Read ``name=path``, the name in lower case. Raise ValueError, the sentence without what was read."""
    name, equals, path = word.partition("=")
    if not equals or not name.strip() or not path.strip():
        raise ValueError("takes name=path, such as vllm=/opt/vllm")
    return name.strip().lower(), Path(path.strip())


def _split(text: str) -> list[str]:
    return [word.strip() for word in text.split(",") if word.strip()]


def _json(text: str) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        raise ValueError("is not valid JSON") from None


def read_object(value: Any) -> dict[str, Any]:
    """Read a mapping, or text that is a JSON object. Raise ValueError for anything else."""
    if isinstance(value, str):
        value = _json(value)
    if not isinstance(value, Mapping):
        raise ValueError("must be a mapping (a JSON object)")
    return {str(key): item for key, item in value.items()}


def read_port_range(value: Any) -> PortRange:
    """Read ``N1-N2``, both between 1 and 65535 and N1 not above N2. Raise ValueError."""
    if isinstance(value, PortRange):
        return value
    match = re.fullmatch(r"\s*([0-9]{1,5})\s*-\s*([0-9]{1,5})\s*", str(value))
    if match is None:
        raise ValueError(f"must be a range of ports such as 40000-40063, not {quote(value)}")
    first, last = int(match[1]), int(match[2])
    if first > last:
        raise ValueError(f"must not begin ({first}) after its end ({last})")
    if not 1 <= first <= last <= 65535:
        raise ValueError(f"must lie between 1 and 65535, not {first}-{last}")
    return PortRange(first, last)


def read_system_reserved(value: Any) -> SystemReservedGib:
    """Read ``{"ram": GiB, "vram": GiB}``; a missing key keeps its default. Raise ValueError."""
    if isinstance(value, SystemReservedGib):
        return value
    amounts: dict[str, float] = {}
    for key, amount in read_object(value).items():
        name = _DEPRECATED.get(key, key)
        if name not in ("ram", "vram"):
            raise ValueError(f"takes ram and vram, not {quote(key)}")
        if name in amounts:
            raise ValueError(f"gives {name} twice: {key} is its old name")
        amounts[name] = read_number(amount)
        if amounts[name] < 0:
            raise ValueError(f"{key} must not be negative")
    return attrs.evolve(SystemReservedGib(), **amounts)


def old_keys_of_system_reserved(value: Any) -> list[str]:
    """The deprecated keys in ``value``, which ``read_system_reserved`` has accepted."""
    if isinstance(value, SystemReservedGib):
        return []
    return [key for key in read_object(value) if key in _DEPRECATED]
