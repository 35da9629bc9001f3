"""The layer of the command line: arguments are brought into a form that docopt reads, then docopt reads them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import attrs

from gpustack.config.help_text import usage
from gpustack.config.option import Option, table
from gpustack.config.options import Options
from gpustack.config.origin import ConfigFault, Layer, Origin, RawValue

_WORDS = frozenset({"true", "false"})


@attrs.frozen
class Arguments:
    """``layer`` holds the options that were given, ``own`` the flags that only one command has."""

    layer: Layer
    own: dict[str, Any]
    faults: tuple[ConfigFault, ...]


def read_arguments(argv: Sequence[str], command: str = "start") -> Arguments:
    """Read ``argv``, the arguments after ``gpustack <command>``. ``--help`` prints the help and raises SystemExit.

    Of a flag given twice the last one counts; the values of a list are collected. A boolean flag may be followed by
    ``true`` or ``false``. A flag may be abbreviated where that is unambiguous.
    """
    from docopt import docopt

    plain = _ArgumentNormalizer(command)
    plain.read(list(argv))
    found = docopt(usage(command), [command, *plain.argv()])
    layer: dict[str, RawValue] = {}
    for option in plain.options:
        value = plain.words.get(option.flag or "", found[option.flag])
        if value not in (None, [], False):
            layer[option.name] = RawValue(value, Origin("flag", option.flag or ""))
    own = {flag: found[flag] for flag in plain.own}
    return Arguments(layer, own, tuple(plain.faults))


class _ArgumentNormalizer:
    """Rewrites an argument vector so that each flag is written in full, once, with its value after =."""

    def __init__(self, command: str) -> None:
        self.options = [option for option in table(Options) if option.flag]
        self.own = ["--format"] if command == "config" else []
        self.words: dict[str, str] = {}
        self.faults: list[ConfigFault] = []
        self._flags: dict[str, Option | None] = {option.flag or "": option for option in self.options}
        self._flags.update(dict.fromkeys([*self.own, "--help"]))
        self._shorts = {option.short: option.flag or "" for option in self.options if option.short}
        self._shorts["-h"] = "--help"
        self._single: dict[str, str] = {}
        self._lists: list[str] = []

    def argv(self) -> list[str]:
        """The rewritten vector. docopt can read it even when the given one has faults."""
        return [*self._single.values(), *self._lists]

    def read(self, rest: list[str]) -> None:
        while rest:
            token = rest.pop(0)
            if token.startswith("--") and len(token) > 2:
                self._long(token, rest)
            elif token.startswith("-") and len(token) > 1 and token != "--":
                self._short(token, rest)
            else:
                self._fault(None, f"the argument {token!r} belongs to no option")

    def _fault(self, flag: str | None, sentence: str) -> None:
        self.faults.append(ConfigFault(Origin("flag", flag) if flag else None, sentence))

    def _long(self, token: str, rest: list[str]) -> None:
        name, joined, value = token.partition("=")
        flag = self._full(name)
        if flag is not None:
            self._take(flag, value if joined else None, rest)
            return
        if not joined and rest and not rest[0].startswith("-"):
            rest.pop(0)  # most likely the value of the unknown flag: no second fault

    def _short(self, token: str, rest: list[str]) -> None:
        name, tail = token[:2], token[2:]
        flag = self._shorts.get(name)
        if flag is None:
            self._fault(name, "is not known")
        elif self._standing(flag) and tail and not tail.startswith("="):
            self._take(flag, None, [])
            self._short(f"-{tail}", rest)
        else:
            self._take(flag, tail.removeprefix("=") if tail else None, rest)

    def _standing(self, flag: str) -> bool:
        option = self._flags[flag]
        return flag == "--help" or (option is not None and option.boolean)

    def _full(self, name: str) -> str | None:
        """The flag that ``name`` is or abbreviates; ``None`` if there is none, which is added to the faults."""
        if name in self._flags:
            return name
        begun = [flag for flag in self._flags if flag.startswith(name)]
        if len(begun) == 1:
            return begun[0]
        if begun:
            self._fault(name, f"could be any of {', '.join(sorted(begun))}")
            return None
        import difflib

        close = difflib.get_close_matches(name, list(self._flags), n=1)
        self._fault(name, f"is not known; did you mean {close[0]}?" if close else "is not known")
        return None

    def _take(self, flag: str, value: str | None, rest: list[str]) -> None:
        option = self._flags[flag]
        if self._standing(flag):
            # The options page writes "--debug value": a following true or false is the value of the flag.
            if value is None and rest and rest[0].lower() in _WORDS:
                value = rest.pop(0)
            self._single[flag] = flag
            self.words.pop(flag, None)
            if value is not None:
                self.words[flag] = value
            return
        if value is None and not rest:
            self._fault(flag, "needs a value")
            return
        written = f"{flag}={rest.pop(0) if value is None else value}"
        if option is not None and option.repeated:
            self._lists.append(written)
        else:
            self._single[flag] = written
