"""The declaration of one option or environment variable: its spellings, default, help, and checks."""

from __future__ import annotations

import functools
import json
import typing
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

import attrs

from gpustack.config.url import MASK
from gpustack.config.value import PortRange, SystemReservedGib, trim

Group = Literal["common", "server", "worker"]
Form = Literal["http_url", "header_value", "file"]
"""What a text or path must be: an http(s) URL; printable ASCII, as HTTP headers carry; a file that can be read."""

LEGACY = "GPU_STACK_"
"""The older prefix of environment variables, still read."""

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
    """One option, as a field of ``Options``, ``Environment`` or another declaring class describes it.

    ``shown`` is the default in words where it depends on the machine. ``sample`` is a valid text that differs from the
    default. ``built`` says whether setting the option has an effect in this version; for some options that depends on
    the value. ``low`` and ``high`` are inclusive. ``lines`` says that the text may have several lines.
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
    form: Form | None

    @property
    def boolean(self) -> bool:
        """Its flag takes no value."""
        return self.type is bool

    @property
    def repeated(self) -> bool:
        """Its flag may be given several times, and its value is a list."""
        return bool(self.type == tuple[str, ...])

    @property
    def holds_lines(self) -> bool:
        """Its text may have several lines, as PEM and JSON do."""
        return self.lines or self.metavar == "JSON" or self.repeated

    @property
    def legacy_env(self) -> str:
        """Its variable under the older prefix."""
        return f"{LEGACY}{self.name.upper()}"

    @property
    def metavar(self) -> str:
        """What stands for its value in the help text."""
        kinds = [kind for kind in typing.get_args(self.type) if kind is not type(None)]
        kind = kinds[0] if type(None) in typing.get_args(self.type) else self.type
        if kind is str:
            return "URL" if self.name.endswith(("_url", "_uri", "_issuer")) else "TEXT"
        return _METAVARS.get(kind, "JSON")

    def show(self, value: Any) -> str:
        """``value`` as text that anyone may see: secrets are masked, ``None`` and an empty list are an empty text."""
        if value is None or value == ():
            return ""
        if self.mask is not None:
            return self.mask(value)
        if isinstance(value, bool):
            return "true" if value else "false"
        if isinstance(value, float):
            return str(trim(value))
        return json.dumps(value) if isinstance(value, tuple | dict) else str(value)

    @property
    def default_text(self) -> str:
        """The default as help and documents state it."""
        return self.shown or self.show(self.default) or "none"

    def takes_effect(self, value: Any) -> bool:
        """Whether ``value`` has an effect in this version. Off and none always have."""
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
    form: Form | None = None,
) -> Any:
    """Declare an option as an attrs field; its name and type are those of the field.

    The variable is ``GPUSTACK_`` and the name in upper case unless ``env`` names another. ``flag=False`` leaves the
    option to YAML and the environment. ``secret`` may be a function that masks the value. The rest is as in ``Option``.
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
        "form": form,
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
