"""From raw values to typed ones: text trimmed, one pass of cattrs, and all faults gathered."""

from __future__ import annotations

import functools
from collections.abc import Callable, Collection, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Generic, TypeVar

import attrs

from gpustack.config.option import Option, table
from gpustack.config.origin import DEFAULT, ConfigFault, RawValue
from gpustack.config.resource_block import ResourceBlock, ResourcesError, read_resources
from gpustack.config.value import (
    PortRange,
    SystemReservedGib,
    read_bool,
    read_int,
    read_number,
    read_object,
    read_path,
    read_port_range,
    read_system_reserved,
    read_text,
    read_words,
    trim,
)
from gpustack.text import character_fault, trimmed

if TYPE_CHECKING:
    from cattrs import Converter

T = TypeVar("T", bound=attrs.AttrsInstance)

_READERS: tuple[tuple[Any, Callable[[Any], Any]], ...] = (
    (bool, read_bool),  # cattrs alone takes any text for true, "false" included
    (int, read_int),
    (float, read_number),
    (str, read_text),
    (Path, read_path),
    (tuple[str, ...], read_words),
    (PortRange, read_port_range),
    (SystemReservedGib, read_system_reserved),
    (ResourceBlock, read_resources),
    (dict[str, Any], read_object),
)


@attrs.frozen
class Conversion(Generic[T]):
    """``value`` with the defaults of the options in ``bad``, which have a fault; and the trimmed raw values."""

    value: T
    given: Mapping[str, RawValue]
    faults: list[ConfigFault]
    bad: set[str]


def convert(cls: type[T], given: Mapping[str, RawValue]) -> Conversion[T]:
    """Trim and check the raw values of all options of ``cls``, and read them into a ``cls``."""
    clean, faults, bad = _clean(cls, given)
    value, wrong, misread = _structure(cls, clean)
    return Conversion(value, clean, [*faults, *wrong], bad | misread)


def _clean(
    cls: type[attrs.AttrsInstance], given: Mapping[str, RawValue]
) -> tuple[dict[str, RawValue], list[ConfigFault], set[str]]:
    """The values with their text trimmed, and what is wrong with its characters.

    The faults show nothing of a value: it may be a secret.
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
    """One value trimmed, and what is wrong with its characters. A value that is not text comes back as it is."""
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


def _structure(cls: type[T], given: Mapping[str, RawValue]) -> tuple[T, list[ConfigFault], set[str]]:
    """A ``cls``, every fault, and the names of the options at fault."""
    from cattrs import ClassValidationError

    raw = {name: value.value for name, value in given.items() if value.origin != DEFAULT}
    wrong: dict[str, tuple[str, ...]] = {}
    try:
        read = _converter().structure(raw, cls)
    except ClassValidationError as error:
        for cause, note in error.group_exceptions()[0]:
            told = cause.faults if isinstance(cause, ResourcesError) else (str(cause),)
            wrong[note.name] = tuple(f"{note.name} {sentence}" for sentence in told)
        read = _converter().structure(_without(raw, wrong), cls)
    for option in table(cls):
        sentence = _bound_fault(option, getattr(read, option.name)) if option.name in raw else None
        if sentence is not None:
            wrong[option.name] = (sentence,)
    if wrong:
        read = _converter().structure(_without(raw, wrong), cls)
    faults = [ConfigFault(given[name].origin, sentence) for name, told in wrong.items() for sentence in told]
    return read, faults, set(wrong)


def _without(raw: Mapping[str, Any], names: Collection[str]) -> dict[str, Any]:
    return {name: value for name, value in raw.items() if name not in names}


def _bound_fault(option: Option, value: Any) -> str | None:
    """What is wrong with a number outside the bounds of its option."""
    if option.low is None or option.high is None or option.low <= value <= option.high:
        return None
    given = value if isinstance(value, int) else f"{value:g}"
    return f"{option.name} must lie between {trim(option.low)} and {trim(option.high)}, not {given}"


@functools.cache
def _converter() -> Converter:
    from cattrs import Converter

    converter = Converter(detailed_validation=True)
    for kind, read in _READERS:
        if isinstance(kind, type):
            # Plain classes are looked up before predicates, and cattrs has hooks of its own for them.
            converter.register_structure_hook(kind, _hook(read))
        converter.register_structure_hook_func(_matches(kind), _hook(read))
    return converter


def _matches(kind: Any) -> Callable[[Any], bool]:
    return lambda asked: bool(asked == kind or asked == kind | None)


def _hook(read: Callable[[Any], Any]) -> Callable[[Any, Any], Any]:
    return lambda value, _: read(value)
