"""Flags of a command line, each with the parameter of the embedded engine that it sets, and their reading."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any


class FlagError(Exception):
    """The command line is wrong, or asks for what the embedded engine cannot do; one sentence says which."""


Setter = Callable[[Any, str], None]


@dataclass(frozen=True)
class Flag:
    """``names`` of one flag and what it does to the parameters; a switch takes no value."""

    names: tuple[str, ...]
    set: Setter
    takes_value: bool = True


def put(target: Any, path: str, value: object) -> None:
    """Set the attribute at a dotted ``path``."""
    *outer, leaf = path.split(".")
    for name in outer:
        target = getattr(target, name)
    setattr(target, leaf, value)


def valued(names: str, path: str, convert: Callable[[str], object]) -> Flag:
    """A flag whose converted value goes to ``path``."""
    return Flag(tuple(names.split()), lambda params, text: put(params, path, convert(text)))


def switch(names: str, path: str, value: object) -> Flag:
    """A flag without value that sets ``path`` to ``value``."""
    return Flag(tuple(names.split()), lambda params, _: put(params, path, value), takes_value=False)


def choice(names: str, path: str, words: Mapping[str, object]) -> Flag:
    """A flag whose value is one of ``words``."""

    def convert(text: str) -> object:
        found = words.get(text.lower())
        if found is None:
            raise ValueError(f"is not one of {', '.join(words)}")
        return found

    return valued(names, path, convert)


def members(enumeration: Iterable[Any], prefix: str, **further: str) -> dict[str, object]:
    """Words for the members of an enumeration: their names without ``prefix``; ``further`` are synonyms."""
    words = {member.name.removeprefix(prefix).lower(): member for member in enumeration}
    return {**words, **{word: words[name] for word, name in further.items() if name in words}}


def apply(flags: Sequence[Flag], refused: Mapping[str, str], params: Any, argv: Sequence[str]) -> None:
    """Set ``params`` as ``argv`` says; the last of equal flags wins. Raises ``FlagError`` at the first wrong one."""
    table = {name: flag for flag in flags for name in flag.names}
    words = iter(argv)
    for word in words:
        name, equals, value = word.partition("=")
        if name in refused:
            raise FlagError(f"{name} is not available in the embedded llama.cpp: {refused[name]}")
        flag = table.get(name)
        if flag is None:
            raise FlagError(f"unknown argument {name!r}{_suggestion(name, table)}")
        if flag.takes_value and not equals:
            following = next(words, None)
            if following is None:
                raise FlagError(f"{name} needs a value")
            value = following
        elif equals and not flag.takes_value:
            raise FlagError(f"{name} takes no value")
        try:
            flag.set(params, value)
        except (ValueError, OverflowError, TypeError, OSError) as error:
            raise FlagError(f"{name}: {value!r} {_reason(error)}") from error


def _reason(error: Exception) -> str:
    text = str(error)
    if text.startswith("is not"):
        return text
    if text.startswith(("invalid literal", "could not convert")):
        return "is not a number"
    return f"cannot be used: {text}"


def _suggestion(name: str, known: Iterable[str]) -> str:
    near = difflib.get_close_matches(name, list(known), n=1)
    return f"; did you mean {near[0]}?" if near else "; see llama-server's flags"
