"""Backend parameters as users write them: ``--a=b``, ``--a b`` in one item, or two items."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterable, Sequence
from functools import lru_cache

import attrs

_FLAG = re.compile(r"--?[A-Za-z][^\s=]*")


@attrs.frozen
class BackendParameter:
    """A flag with its value; a switch has none. ``flag`` is empty for a value that follows no flag."""

    flag: str
    value: str | None = None


def tokens(items: Iterable[str]) -> tuple[str, ...]:
    """One argument for each flag and each value, however spelt. A value may begin with a minus and a digit."""
    found: list[str] = []
    for item in items:
        found.extend(_split(item.strip()))
    return tuple(found)


def read(items: Iterable[str]) -> tuple[BackendParameter, ...]:
    """The parameters in order. A word after a flag is taken as its value."""
    return _read(tuple(items))


@lru_cache(maxsize=512)  # a decision on a place asks for one after the other, of the same deployment
def _read(items: tuple[str, ...]) -> tuple[BackendParameter, ...]:
    found: list[BackendParameter] = []
    open_flag = False
    for token in tokens(items):
        if is_flag(token):
            found.append(BackendParameter(token))
            open_flag = True
        elif open_flag:
            found[-1] = BackendParameter(found[-1].flag, token)
            open_flag = False
        else:
            found.append(BackendParameter("", token))
    return tuple(found)


def is_flag(token: str) -> bool:
    """``--name`` or ``-n``; not ``-1``, which is a number."""
    return _FLAG.fullmatch(token) is not None


def dashed(flag: str) -> str:
    """A flag as helps spell it: vLLM and llama.cpp read ``--ctx_size`` as ``--ctx-size``."""
    return flag.replace("_", "-") if flag.startswith("--") else flag


def value_of(items: Iterable[str], *names: str) -> str | None:
    """The value of the last parameter that has one of ``names``, with ``_`` or ``-``; ``None`` if there is none."""
    given = [p for p in read(items) if dashed(p.flag) in names]
    return given[-1].value if given else None


def has(items: Iterable[str], *names: str) -> bool:
    """Whether a flag of one of ``names`` is there, with or without value."""
    return any(dashed(p.flag) in names for p in read(items))


def number_of(items: Iterable[str], *names: str) -> int | None:
    """The value as an integer; ``None`` if it is absent or no integer."""
    value = value_of(items, *names)
    try:
        return None if value is None else int(value)
    except ValueError:
        return None


def with_value(items: Sequence[str], names: Sequence[str], flag: str, value: str) -> tuple[str, ...]:
    """The parameters with ``flag=value`` at their end, and without any that has one of ``names``."""
    if not has(items, *names):
        return (*items, f"{flag}={value}")
    kept = (p for p in read(items) if dashed(p.flag) not in names)
    return (*(_item(p) for p in kept), f"{flag}={value}")


def last_of(items: Iterable[str], names: Sequence[str]) -> str | None:
    """Which of ``names`` comes last, for switches that undo each other."""
    given = [flag for p in read(items) if (flag := dashed(p.flag)) in names]
    return given[-1] if given else None


def _item(parameter: BackendParameter) -> str:
    if not parameter.flag:
        return parameter.value or ""
    return parameter.flag if parameter.value is None else f"{parameter.flag}={parameter.value}"


def expanded(items: Iterable[str], *, data_dir: str) -> tuple[str, ...]:
    """``items`` with ``{data_dir}`` filled in."""
    return tuple(item.replace("{data_dir}", data_dir) for item in items)


def _split(item: str) -> list[str]:
    match = _FLAG.match(item)
    if match is None or match.end() == len(item):
        return [item]
    flag, rest = match.group(), item[match.end() :]
    if rest.startswith("="):
        return [flag, rest[1:]]
    if rest.lstrip().startswith(("{", "[")):  # JSON, whose quotes are its own
        return [flag, rest.strip()]
    try:
        words = shlex.split(item)
    except ValueError:  # an apostrophe in a value
        return [flag, rest.strip()]
    if len(words) == 2 or any(is_flag(word.split("=", 1)[0]) for word in words[1:]):
        return [part for word in words for part in _split_word(word)]
    return [flag, rest.strip()]


def _split_word(word: str) -> list[str]:
    flag, equals, value = word.partition("=")
    return [flag, value] if equals and is_flag(flag) else [word]
