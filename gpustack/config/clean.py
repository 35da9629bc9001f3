"""Raw values as they are meant: no white space around them, and no characters that do not belong there."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import attrs

from gpustack.config.environment import PER_MODEL, Environment
from gpustack.config.option import Option, table
from gpustack.config.options import Options
from gpustack.config.origin import DEFAULT, ConfigFault, Origin, RawValue
from gpustack.config.variable import is_read
from gpustack.text import character_fault, trimmed


def clean(
    cls: type[attrs.AttrsInstance], given: Mapping[str, RawValue]
) -> tuple[dict[str, RawValue], list[ConfigFault], set[str]]:
    """The values of options of ``cls``, their text trimmed.

    Returns them, a fault for each that holds a character it must not, and the names at fault, which have their
    defaults in it. Faults show nothing of a value: it may be a secret.
    """
    found: dict[str, RawValue] = {}
    faults: list[ConfigFault] = []
    bad: set[str] = set()
    for option in table(cls):
        value, sentence = cleaned(option, given[option.name])
        if sentence is not None:
            faults.append(ConfigFault(value.origin, f"{option.name} {sentence}"))
            bad.add(option.name)
            value = RawValue(option.default, DEFAULT)
        found[option.name] = value
    return found, faults, bad


def cleaned(option: Option, given: RawValue) -> tuple[RawValue, str | None]:
    """One value trimmed, and what is wrong with its characters. What is no text is left to who reads it."""
    value = given.value
    if given.origin == DEFAULT:
        return given, None
    if isinstance(value, str):
        text = trimmed(value)
        return RawValue(text, given.origin), character_fault(text, lines=option.holds_lines)
    if isinstance(value, list):
        texts = [trimmed(item) if isinstance(item, str) else item for item in value]
        faults = [character_fault(item) for item in texts if isinstance(item, str)]
        return RawValue(texts, given.origin), next(filter(None, faults), None)
    return given, None


def variable_faults(env: Mapping[str, str]) -> list[ConfigFault]:
    """The same of variables that are read elsewhere: by libraries, by children, by models that are given them."""
    known = {name for cls in (Options, Environment) for one in table(cls) for name in (one.env, *one.aliases)}
    known |= {f"GPU_STACK_{option.name.upper()}" for option in table(Options)} | PER_MODEL.keys()
    return [
        ConfigFault(Origin("environment", name), sentence)
        for name, value in sorted(env.items())
        if name not in known and is_read(name) and (sentence := character_fault(trimmed(value)))
    ]


def path_faults(options: Options, bad: set[str]) -> list[ConfigFault]:
    """Places that JSON and databases cannot name; home and working directory have their part in them."""
    return [
        ConfigFault(None, f"{option.name} {sentence}; HOME and the working directory may be part of it")
        for option in table(Options)
        if option.name not in bad
        and isinstance(path := getattr(options, option.name), Path)
        and (sentence := character_fault(str(path)))
    ]
