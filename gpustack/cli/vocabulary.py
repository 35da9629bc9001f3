"""What may follow ``gpustack`` on a command line, read out of the usage texts: for completion and for tests."""

from __future__ import annotations

import importlib
import re
from collections.abc import Mapping, Sequence

import attrs

from gpustack.cli.main import WITHOUT_SERVER, names, summary

_ENTRY = re.compile(
    r"^ {2}(?:(?P<short>-[A-Za-z])(?:, ))?(?P<long>--[a-z][\w-]*)(?:=(?P<value>[A-Z_]+))?(?P<rest>.*)$"
)
_WORD = r"[a-z][\w-]*(?: \([^)]*\))?"
_CHOICES = re.compile(rf"(?:[^:.]*: )?({_WORD}(?:, {_WORD})* or {_WORD})(?=$|[.;]| \()")
_WITH_VALUE = re.compile(r"(?<!\w)--?[\w-]+(?:[ =][A-Z_]+)?")
_PLACE = re.compile(r"\(([^()]*)\)|([\w-]+)")
"""One position of a usage line: a choice of words in parentheses, or a single word or argument."""
OPTION_COMMANDS = frozenset({"start", "config"})
"""Commands whose usage text is made from the options of the daemon."""

_NAMES = {"MODEL": "ls", "WORKER": "workers", "CONTEXT": "context"}
"""For an argument or the value of an option: the command whose ``-q`` lists what it may be."""
_NAMES_OF: Mapping[str, tuple[str, ...]] = {
    "logs": ("ps", "ls"),
    "explain": ("ps", "ls"),
    "show": ("ls", "ps", "workers"),
    "workers": ("workers",),
    "keys": ("keys",),
    "users": ("users",),
    "limits key": ("keys",),
    "limits user": ("users",),
    "limits model": ("ls",),
    "files": ("files",),
    "wait": ("ls", "ps", "workers"),
    "events": ("ls", "ps", "workers"),
    "context": ("context",),
}
"""The same for the arguments NAME, ID and OBJECT of a command, or of one of its verbs."""
_ARGUMENTS = frozenset({"NAME", "ID", "OBJECT"})
_MAKES = ("create", "add")
"""The verbs whose NAME is new, so that nothing can be offered."""
_FILES = frozenset({"FILE", "DIR", "PATH"})


@attrs.frozen(kw_only=True)
class OptionEntry:
    """An option and its first line of help. ``value`` is the placeholder of its value; ``None`` for a flag."""

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
        """The command whose ``-q`` lists what the value may be."""
        return _NAMES.get(self.value or "")


_CONTEXT = OptionEntry(name="--context", value="CONTEXT", help="The server, by its name in gpustack context")
"""What every command takes that talks to a server."""


@attrs.frozen(kw_only=True)
class WordPosition:
    """What may follow at one position: the ``verbs``, and what the commands in ``lists`` print with ``-q``.

    The position is behind the verb ``after`` of the command, or before all verbs (``""``).
    """

    after: str = ""
    verbs: tuple[str, ...] = ()
    lists: tuple[str, ...] = ()


@attrs.frozen(kw_only=True)
class CommandVocabulary:
    """What may follow one command, and its summary."""

    command: str
    summary: str
    options: tuple[OptionEntry, ...]
    steps: tuple[WordPosition, ...] = ()
    takes_files: bool = False


def vocabulary() -> list[CommandVocabulary]:
    """The vocabulary of every command, in alphabetical order."""
    return [_of(name) for name in names()]


def text_of(name: str) -> str:
    """The usage text of a command."""
    if name in OPTION_COMMANDS:
        from gpustack.config.help_text import usage

        return usage(name)
    return importlib.import_module(f"gpustack.cli.commands.{name.replace('-', '_')}").__doc__ or ""


def _of(name: str) -> CommandVocabulary:
    text = text_of(name)
    usage = text.split("Usage:")[1].split("\n\n")[0]
    lines = [] if name in OPTION_COMMANDS else usage.replace("[options]", "").strip().splitlines()
    return CommandVocabulary(
        command=name,
        summary=summary(name),
        options=(*options_of(text), *([] if name in WITHOUT_SERVER else [_CONTEXT])),
        steps=tuple(_steps(name, lines)),
        takes_files="[FILE]" in usage or " FILE" in usage or name in ("run", "estimate"),
    )


def _steps(name: str, lines: Sequence[str]) -> list[WordPosition]:
    """The positions of all usage lines at which something can be offered, each once."""
    found: dict[str, WordPosition] = {}
    for line in lines:
        here = [""]
        for chosen, word in _PLACE.findall(_WITH_VALUE.sub("", line).partition(f"gpustack {name}")[2]):
            words = tuple(filter(None, re.split(r"[|\s]+", chosen or word)))
            is_verb = all(one.islower() for one in words)
            for after in here:
                step = found.get(after, WordPosition(after=after))
                found[after] = attrs.evolve(
                    step,
                    verbs=_joined(step.verbs, words if is_verb else ()),
                    lists=_joined(step.lists, () if is_verb else _listed(name, after, words)),
                )
            here = list(words) if is_verb and words else here
    return [step for step in found.values() if step.verbs or step.lists]


def _listed(name: str, after: str, arguments: Sequence[str]) -> tuple[str, ...]:
    if after in _MAKES:
        return ()
    lists = [_NAMES[one] for one in arguments if one in _NAMES]
    if not _ARGUMENTS.isdisjoint(arguments):
        lists += _NAMES_OF.get(f"{name} {after}", _NAMES_OF.get(name, ()))
    return tuple(lists)


def _joined(one: tuple[str, ...], other: tuple[str, ...]) -> tuple[str, ...]:
    return tuple(dict.fromkeys((*one, *other)))


def options_of(text: str) -> list[OptionEntry]:
    """The options that a usage text describes."""
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
    """``table, json or yaml (default: table)`` → the three words; empty where the help does not begin like this."""
    begun = _CHOICES.match(told)
    if begun is None:
        return ()
    return tuple(re.split(r" or |, ", re.sub(r" \([^)]*\)", "", begun[1])))
