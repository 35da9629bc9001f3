"""Where a configured value was written, and faults of the configuration that point there."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

import attrs

from gpustack.errors import GpustackError

OriginKind = Literal["default", "legacy", "file", "environment", "flag"]


@attrs.frozen
class Origin:
    """The place where a value was written. ``str(origin)`` names it as a user would search for it."""

    kind: OriginKind
    where: str = ""

    def __str__(self) -> str:
        if self.kind == "default":
            return "default"
        return f"flag {self.where}" if self.kind == "flag" else self.where


DEFAULT = Origin("default")


@attrs.frozen
class RawValue:
    """A value as it was written, and where. ``repr`` leaves the value out: it may be a secret."""

    value: Any = attrs.field(repr=False)
    origin: Origin


Layer = Mapping[str, RawValue]
"""Raw values from one kind of place, by the names of their options."""


@attrs.frozen
class OptionFault:
    """A fault of one option, or of several together. It is reported at the first of them that was set."""

    names: tuple[str, ...]
    sentence: str


@attrs.frozen
class ConfigFault:
    """One thing wrong with the configuration, and where it was written if that is known."""

    origin: Origin | None
    sentence: str

    def __str__(self) -> str:
        return self.sentence if self.origin is None else f"{self.origin}: {self.sentence}"


class ConfigError(GpustackError):
    """The configuration cannot be used. ``faults`` holds everything wrong with it.

    ``str(error)`` is the whole report, one line per fault: print it to stderr and exit with ``exit_code``.
    """

    exit_code = 2

    def __init__(self, faults: tuple[ConfigFault, ...]) -> None:
        self.faults = faults
        count = "One thing is" if len(faults) == 1 else f"{len(faults)} things are"
        lines = [f"{count} wrong with the configuration:", *(f"  {fault}" for fault in faults)]
        super().__init__("\n".join(lines))
