"""Reads a command line by the usage text of its command, and guesses which known word was meant by an unknown one."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any, TypeVar

import attrs

from gpustack.cli.failure import UsageError
from gpustack.cli.phrase import read_instant

T = TypeVar("T")


@attrs.frozen
class CommandLine:
    """The options and arguments that were given, by their names in the usage text."""

    found: Mapping[str, Any]
    usage: str = ""

    def text(self, name: str) -> str | None:
        """An option's or argument's value; ``None`` when it was not given."""
        value = self.found[name]
        return None if value is None else str(value)

    def required(self, name: str) -> str:
        """The value of an argument that the usage text does not let anybody leave out."""
        return str(self.found[name])

    def flag(self, name: str) -> bool:
        return bool(self.found[name])

    def many(self, name: str) -> list[str]:
        return list(self.found[name])

    def whole(self, name: str, *, least: int = 0, most: int | None = None) -> int | None:
        """A whole number of at least ``least`` and at most ``most``; raises UsageError."""
        text = self.text(name)
        if text is None:
            return None
        digits = text.removeprefix("-")
        number = int(text) if digits.isascii() and digits.isdigit() and len(digits) < 10 else None
        if number is None or number < least or (most is not None and number > most):
            bounds = f"of at least {least}" if most is None else f"from {least} to {most}"
            raise self.error(f"{name} must be a whole number {bounds}, not {text!r}")
        return number

    def number(self, name: str) -> float | None:
        """A number; raises UsageError."""
        text = self.text(name)
        try:
            return None if text is None else float(text)
        except ValueError:
            raise self.error(f"{name} must be a number, not {text!r}") from None

    def choice(self, name: str, *choices: str) -> str:
        """One of ``choices``, the first when nothing was given; raises UsageError."""
        text = self.text(name)
        if text is None:
            return choices[0]
        if text not in choices:
            raise self.error(f"{name} must be one of {', '.join(choices)}, not {text!r}")
        return text

    def error(self, sentence: str) -> UsageError:
        """A fault of this command line, to be raised: told with what could be written."""
        return UsageError(sentence, self.usage)


def given_only(fields: Mapping[str, T | None]) -> dict[str, T]:
    """The fields that the command line sets, without those that are ``None``."""
    return {name: value for name, value in fields.items() if value is not None}


_AGO = re.compile(r"([0-9]{1,6})([smhd])")
_SECONDS = {"s": 1, "m": 60, "h": 3600, "d": 86400}


def instant_of(command_line: CommandLine, option: str, now: datetime) -> str | None:
    """An instant as the API takes it, given as such or as a time ago (``12h``); raises UsageError."""
    text = command_line.text(option)
    if text is None:
        return None
    if found := _AGO.fullmatch(text):
        return (now - timedelta(seconds=int(found[1]) * _SECONDS[found[2]])).isoformat()
    instant = read_instant(text)
    if instant is None:
        raise command_line.error(f"{option} must be an instant or a span such as 12h, not {text!r}")
    return instant.isoformat()


def read(docstring: str | None, name: str, argv: Sequence[str]) -> CommandLine:
    """Read ``gpustack <name> *argv``. ``--help`` prints the docstring and raises SystemExit; raises UsageError."""
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


def suggestion(word: str, known: Iterable[str], otherwise: str) -> str:
    """``did you mean run?`` where a known word is near enough, else ``otherwise``."""
    close = nearest(word, known)
    return f"did you mean {close}?" if close else otherwise


def nearest(word: str, known: Iterable[str]) -> str | None:
    """The known word with the fewest typing errors between it and ``word``; ``None`` when all are too far.

    Of several, the one of the same length: a wrong letter is likelier than a missing one, so ``rum`` does not
    become ``rm``.
    """
    most = 1 if len(word) <= 4 else 2 if len(word) <= 9 else 3
    rated = [(edit_distance(word, one), abs(len(word) - len(one)), one) for one in known]
    best = min(rated, default=None)
    return best[2] if best is not None and best[0] <= most else None


def edit_distance(one: str, other: str) -> int:
    """How many letters must be changed, added, left out, or swapped with the next one (Damerau-Levenshtein)."""
    before: list[int] = []
    last = list(range(len(other) + 1))
    for row, letter in enumerate(one, 1):
        this = [row]
        for column, wanted in enumerate(other, 1):
            cost = min(last[column] + 1, this[-1] + 1, last[column - 1] + (letter != wanted))
            swapped = row > 1 and column > 1 and letter == other[column - 2] and one[row - 2] == wanted
            this.append(min(cost, before[column - 2] + 1) if swapped else cost)
        before, last = last, this
    return last[-1]
