"""The layers of the environment, and how layers lie over one another."""

from __future__ import annotations

from collections.abc import Mapping

import attrs

from gpustack.config.environment import OTHER_COMMANDS, PER_MODEL, Environment
from gpustack.config.option import Option, table
from gpustack.config.options import Options
from gpustack.config.origin import DEFAULT, Layer, Origin, RawValue
from gpustack.text import trimmed

LEGACY = "GPU_STACK_"


def environment_layer(cls: type[attrs.AttrsInstance], env: Mapping[str, str]) -> Layer:
    """What ``env`` says of the options of ``cls``: the own variable first, then its other names.

    An empty variable, or one of white space, takes no part: unit files and compose files write it for "not set".
    """
    layer: dict[str, RawValue] = {}
    for option in table(cls):
        for name in (option.env, *option.aliases):
            if trimmed(env.get(name, "")):
                layer[option.name] = RawValue(env[name], Origin("environment", name))
                break
    return layer


def legacy_layer(env: Mapping[str, str]) -> Layer:
    """What ``env`` says under the older prefix, which yields to everything but the defaults."""
    return {
        option.name: RawValue(env[name], Origin("legacy", name))
        for option in table(Options)
        if trimmed(env.get(name := f"{LEGACY}{option.name.upper()}", "")) and option.name != "config_file"
    }


def default_layer(cls: type[attrs.AttrsInstance]) -> Layer:
    """The defaults, as values that need no reading."""
    return {option.name: RawValue(option.default, DEFAULT) for option in table(cls)}


def merge(*layers: Layer) -> dict[str, RawValue]:
    """Lay each layer over the ones before it."""
    merged: dict[str, RawValue] = {}
    for layer in layers:
        merged.update(layer)
    return merged


def unknown_variables(env: Mapping[str, str]) -> list[str]:
    """Variables with our prefixes that nothing reads, each with the one it resembles if there is one."""
    import difflib

    known = {option.env for option in (*table(Options), *table(Environment))}
    known |= {alias for option in table(Options) for alias in option.aliases}
    known |= PER_MODEL.keys() | OTHER_COMMANDS.keys()
    legacy = {f"{LEGACY}{option.name.upper()}" for option in table(Options)}
    unknown = []
    for name in sorted(env):
        if name.startswith(("GPUSTACK_", LEGACY)) and name not in known | legacy:
            close = difflib.get_close_matches(name, known, n=1, cutoff=0.8)
            unknown.append(f"{name} (did you mean {close[0]}?)" if close else name)
    return unknown


def written(options: tuple[Option, ...], given: Mapping[str, RawValue]) -> list[Option]:
    """The options that someone set, in the order of their table."""
    return [option for option in options if given[option.name].origin != DEFAULT]
