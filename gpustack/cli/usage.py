"""Reads a command line by the usage text of its command."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

import attrs

from gpustack.cli.misuse import UsageError
from gpustack.cli.nearest import nearest


@attrs.frozen
class CommandLine:
    """What was given, by the names of the usage text."""

    found: Mapping[str, Any]
    usage: str = ""

    def text(self, name: str) -> str | None:
        """An option's or argument's value; ``None`` when it was not given."""
        value = self.found[name]
        return None if value is None else str(value)

    def flag(self, name: str) -> bool:
        return bool(self.found[name])

    def many(self, name: str) -> list[str]:
        return list(self.found[name])

    def whole(self, name: str, *, least: int = 0) -> int | None:
        """A whole number of at least ``least``; raises Misuse."""
        text = self.text(name)
        if text is None:
            return None
        if not (text.isascii() and text.isdigit() and len(text) < 10 and int(text) >= least):
            raise UsageError(f"{name} must be a whole number of at least {least}, not {text!r}", self.usage)
        return int(text)

    def choice(self, name: str, *choices: str) -> str:
        """One of ``choices``, the first when nothing was given; raises Misuse."""
        text = self.text(name)
        if text is None:
            return choices[0]
        if text not in choices:
            raise UsageError(f"{name} must be one of {', '.join(choices)}, not {text!r}", self.usage)
        return text


def read(docstring: str | None, name: str, argv: Sequence[str]) -> CommandLine:
    """Read ``gpustack <name> *argv``. ``--help`` prints the docstring and raises SystemExit; raises Misuse."""
    from docopt import DocoptExit, docopt

    text = docstring or ""
    body = _usage_of(text)
    try:
        return CommandLine(docopt(text, [name, *argv]), body)
    except DocoptExit as error:
        raise UsageError(_sentence(name, text, error.code), body) from None


def _verbs_of(text: str, name: str) -> list[str]:
    """The words that a usage text has written out behind the command, such as ``bar`` and ``admit``."""
    found = _LITERAL.findall(_usage_of(text))
    return [word for word in dict.fromkeys(found) if word not in ("gpustack", "options", name)]


def _usage_of(docstring: str) -> str:
    after = docstring[docstring.index("Usage:") :]
    return after.split("\n\n", 1)[0]


# docopt names what it could not place only in the text of its error.
_LEFT = re.compile(r"(?:Argument\(None, |Option\([^,]*, )'([^']*)'")
_OPTION = re.compile(r"--?[A-Za-z][\w-]*")
_LITERAL = re.compile(r"(?<![\w<-])[a-z][a-z-]+(?![\w=>-])")


def _sentence(name: str, text: str, code: object) -> str:
    said = str(code).split("\n", 1)[0]
    left = _LEFT.findall(said)
    unknown = [word for word in left if word.startswith("-") and word not in _OPTION.findall(text)]
    if unknown:
        return _not_understood(name, unknown[0], _OPTION.findall(text))
    verbs = _verbs_of(text, name)
    words = left[1:] if left[:1] == [name] else left
    if left and (not words or words[0] in verbs or (words is not left and not verbs)):
        return f"gpustack {name}: an argument is missing"
    if words:
        return _not_understood(name, words[0], verbs)
    if said and not said.startswith(("Usage:", "Warning:")):
        return f"gpustack {name}: {said}"
    return f"gpustack {name} does not understand what follows it"


def _not_understood(name: str, word: str, known: Sequence[str]) -> str:
    close = nearest(word.partition("=")[0], known)
    return f"gpustack {name} does not understand {word}{f'; did you mean {close}?' if close else ''}"
