"""What can be written after ``gpustack``: read out of the usage texts, for shells that complete it."""

from __future__ import annotations

import importlib
import re
from collections.abc import Mapping

import attrs

from gpustack.cli.main import names, summary
from gpustack.cli.usage import verbs_of

_ENTRY = re.compile(
    r"^ {2}(?:(?P<short>-[A-Za-z])(?:, ))?(?P<long>--[a-z][\w-]*)(?:=(?P<value>[A-Z_]+))?(?P<rest>.*)$"
)
_WORD = r"[a-z][\w-]*(?: \([^)]*\))?"
_CHOICES = re.compile(rf"(?:[^:.]*: )?({_WORD}(?:, {_WORD})* or {_WORD})(?=$|[.;]| \()")
_WITH_VALUE = re.compile(r"--?[\w-]+[ =][A-Z_]+")
_OWN = frozenset({"start", "config"})
"""Their usage is made from the options of the daemon."""

_NAMES = {"MODEL": "ls", "WORKER": "workers"}
"""The command that lists what an argument or the value of an option may be, with ``-q``."""
_NAMES_OF: Mapping[str, tuple[str, ...]] = {
    "logs": ("ps", "ls"),
    "explain": ("ps", "ls"),
    "show": ("ls", "ps", "workers"),
    "workers": ("workers",),
    "keys": ("keys",),
    "users": ("users",),
    "limits": ("keys", "users", "ls"),
    "files": ("files",),
}
"""The same for the arguments NAME and ID of a command."""
_FILES = frozenset({"FILE", "DIR", "PATH"})


@attrs.frozen(kw_only=True)
class OptionEntry:
    """An option with its first line of help. ``value`` is what the usage calls its value; ``None`` for a flag."""

    name: str
    short: str | None = None
    value: str | None = None
    help: str = ""
    choices: tuple[str, ...] = ()

    @property
    def is_file(self) -> bool:
        return self.value in _FILES

    @property
    def list(self) -> str | None:
        """The command whose ``-q`` names what its value may be."""
        return _NAMES.get(self.value or "")


@attrs.frozen(kw_only=True)
class Vocabulary:
    """What may follow one command. ``lists`` are the commands whose ``-q`` names what its arguments may be."""

    command: str
    summary: str
    options: tuple[OptionEntry, ...]
    verbs: tuple[str, ...] = ()
    lists: tuple[str, ...] = ()
    takes_files: bool = False


def vocabulary() -> list[Vocabulary]:
    """Every command's, in the order of the alphabet."""
    return [_of(name) for name in names()]


def text_of(name: str) -> str:
    """The usage text of a command."""
    if name in _OWN:
        from gpustack.config.usage import usage

        return usage(name)
    return importlib.import_module(f"gpustack.cli.commands.{name.replace('-', '_')}").__doc__ or ""


def _of(name: str) -> Vocabulary:
    text = text_of(name)
    body = _WITH_VALUE.sub("", text.split("Usage:")[1].split("\n\n")[0])
    arguments = re.findall(r"(?<![\w=-])[A-Z_]{2,}(?!\w)", body)
    lists = [_NAMES[one] for one in arguments if one in _NAMES]
    if "NAME" in arguments or "ID" in arguments:
        lists += _NAMES_OF.get(name, ())
    return Vocabulary(
        command=name,
        summary=summary(name),
        options=tuple(_options(text)),
        verbs=() if name in _OWN else tuple(verbs_of(text, name)),
        lists=tuple(dict.fromkeys(lists)),
        takes_files="FILE" in arguments or name == "run",
    )


def _options(text: str) -> list[OptionEntry]:
    lines, found = text.split("\n"), []
    for line, after in zip(lines, [*lines[1:], ""], strict=True):
        entry = _ENTRY.match(line)
        if entry is None:
            continue
        told = entry["rest"].strip() or after.strip()
        found.append(
            OptionEntry(
                name=entry["long"],
                short=entry["short"],
                value=entry["value"],
                help=told.split(". ")[0].rstrip("."),
                choices=() if entry["value"] is None else _choices(told),
            )
        )
    return found


def _choices(told: str) -> tuple[str, ...]:
    """``table, json or yaml (default: table)`` → the three; nothing where the help does not begin so."""
    begun = _CHOICES.match(told)
    if begun is None:
        return ()
    return tuple(re.split(r" or |, ", re.sub(r" \([^)]*\)", "", begun[1])))
