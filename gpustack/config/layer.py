"""The layers of raw values (defaults, environment), and how one overrides another."""

from __future__ import annotations

from collections.abc import Mapping

import attrs

from gpustack.config.option import Option, table
from gpustack.config.options import Options
from gpustack.config.origin import DEFAULT, Layer, Origin, RawValue
from gpustack.text import trimmed


def environment_layer(cls: type[attrs.AttrsInstance], env: Mapping[str, str]) -> Layer:
    """The values that ``env`` gives to the options of ``cls``; an option's own variable wins over its aliases.

    An empty or blank variable counts as not set: unit files and compose files write it so.
    """
    layer: dict[str, RawValue] = {}
    for option in table(cls):
        for name in (option.env, *option.aliases):
            if trimmed(env.get(name, "")):
                layer[option.name] = RawValue(env[name], Origin("environment", name))
                break
    return layer


def legacy_layer(env: Mapping[str, str]) -> Layer:
    """The values that ``env`` gives under the older prefix. This layer overrides the defaults only."""
    return {
        option.name: RawValue(env[name], Origin("legacy", name))
        for option in table(Options)
        if trimmed(env.get(name := option.legacy_env, "")) and option.name != "config_file"
    }


def default_layer(cls: type[attrs.AttrsInstance]) -> Layer:
    """The defaults, which are typed values already."""
    return {option.name: RawValue(option.default, DEFAULT) for option in table(cls)}


def merge(*layers: Layer) -> dict[str, RawValue]:
    """All values; a later layer overrides the ones before it."""
    merged: dict[str, RawValue] = {}
    for layer in layers:
        merged.update(layer)
    return merged


def written(options: tuple[Option, ...], given: Mapping[str, RawValue]) -> list[Option]:
    """The options that were set somewhere, in the order of their declaration."""
    return [option for option in options if given[option.name].origin != DEFAULT]
