"""What is written about one option: its spellings, default, help, and whether its effect is built yet."""

from __future__ import annotations

import functools
import json
import re
import typing
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

import attrs

from gpustack.config.value import PortRange, SystemReservedGib, trim

Group = Literal["common", "server", "worker"]
MASK = "***"

_METADATA = "gpustack"
_METAVARS: dict[Any, str] = {
    int: "N",
    float: "N",
    tuple[str, ...]: "ARG",
    PortRange: "N1-N2",
    SystemReservedGib: "JSON",
    Path: "PATH",
}


@attrs.frozen(kw_only=True)
class Option:
    """One option as its field in ``Options`` (or ``Environment``) declares it.

    ``shown`` is the default in words where it depends on the machine; ``sample`` is a valid text for it that
    is not its default. ``built`` says whether setting it has its effect, for some options by value.
    """

    name: str
    type: Any
    default: Any = attrs.field(repr=False)
    help: str
    group: Group
    flag: str | None
    short: str | None
    env: str
    aliases: tuple[str, ...]
    mask: Callable[[Any], str] | None
    hidden: bool
    built: bool | Callable[[Any], bool]
    shown: str | None
    sample: str
    low: float | None
    high: float | None
    lines: bool

    @property
    def boolean(self) -> bool:
        return self.type is bool

    @property
    def repeated(self) -> bool:
        return bool(self.type == tuple[str, ...])

    @property
    def holds_lines(self) -> bool:
        """Whether its text may have several lines, as PEM and JSON have."""
        return self.lines or self.metavar == "JSON" or self.repeated

    @property
    def metavar(self) -> str:
        kinds = [kind for kind in typing.get_args(self.type) if kind is not type(None)]
        kind = kinds[0] if type(None) in typing.get_args(self.type) else self.type
        if kind is str:
            return "URL" if self.name.endswith(("_url", "_uri", "_issuer")) else "TEXT"
        return _METAVARS.get(kind, "JSON")

    def show(self, value: Any) -> str:
        """``value`` as it may be shown to anyone: secrets masked, nothing as an empty text."""
        if value is None or value == ():
            return ""
        if self.mask is not None:
            return self.mask(value)
        if isinstance(value, bool):
            return "true" if value else "false"
        if isinstance(value, float):
            return str(trim(value))
        return json.dumps(value) if isinstance(value, tuple | dict) else str(value)

    def takes_effect(self, value: Any) -> bool:
        """Whether this version does what ``value`` asks. Asking for nothing (off, none) always is done."""
        if value is None or value is False or value == ():
            return True
        return self.built(value) if callable(self.built) else self.built


def option(
    *,
    default: Any,
    help: str,
    group: Group = "common",
    flag: bool = True,
    short: str | None = None,
    env: str | None = None,
    aliases: tuple[str, ...] = (),
    secret: bool | Callable[[Any], str] = False,
    hidden: bool = False,
    built: bool | Callable[[Any], bool] = True,
    shown: str | None = None,
    sample: str = "sample",
    low: float | None = None,
    high: float | None = None,
    lines: bool = False,
) -> Any:
    """Declare an option as an attrs field; its name and type are the field's own.

    ``flag=False`` leaves it to YAML and the environment. ``secret`` may be the function that masks its value.
    ``lines`` says that its text may have several lines.
    """
    mask = secret if callable(secret) else _mask if secret else None
    told = {
        "help": help,
        "group": group,
        "flag": flag,
        "short": short,
        "env": env,
        "aliases": aliases,
        "mask": mask,
        "hidden": hidden,
        "built": built,
        "shown": shown,
        "sample": sample,
        "low": low,
        "high": high,
        "lines": lines,
    }
    return attrs.field(default=default, repr=mask or True, metadata={_METADATA: told})


def _mask(value: Any) -> str:
    return MASK if value else repr(value)


@functools.cache
def table(cls: type[attrs.AttrsInstance]) -> tuple[Option, ...]:
    """Every option that ``cls`` declares, in the order it declares them."""
    types = typing.get_type_hints(cls)
    return tuple(_describe(field, types[field.name]) for field in attrs.fields(cls))


def _describe(field: attrs.Attribute[Any], type_: Any) -> Option:
    told = dict(field.metadata[_METADATA])
    told["flag"] = f"--{field.name.replace('_', '-')}" if told["flag"] else None
    told["env"] = told["env"] or f"GPUSTACK_{field.name.upper()}"
    return Option(name=field.name, type=type_, default=field.default, **told)


def mask_url(url: Any) -> str:
    """``url`` with the passwords in it, if any, replaced by ``***``."""
    # Greedy up to the last @: a password that was not quoted may hold @ and slashes itself.
    shown = re.sub(r"(://[^:/@]*):.*@", rf"\1:{MASK}@", str(url))
    return re.sub(r"(?i)(passw(?:or)?d)=[^&]*", rf"\1={MASK}", shown)
