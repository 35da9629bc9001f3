"""The flags that a program knows, as its own help text lists them, and which of them a mistyped one may mean."""

from __future__ import annotations

import re
from collections.abc import Iterable
from difflib import get_close_matches

import attrs

_ENTRY = re.compile(r"^ {2}(-[^\n]*)$", re.MULTILINE)
"""How ``argparse`` begins the description of a flag: indented by two, then all its spellings."""
_SPELLING = re.compile(r"(?:^|, )(--?[A-Za-z][A-Za-z0-9-]*)")
_LIKENESS = 0.6
"""How alike a name must be to be offered instead, from 0 to 1 (``difflib``)."""


@attrs.frozen(kw_only=True)
class FlagList:
    """The flags of one version of a program, without values."""

    version: str
    names: frozenset[str] = attrs.field(repr=False)

    def knows(self, flag: str) -> bool:
        """Whether a flag is there exactly. ``argparse`` takes the beginning of a name for the name; we do not."""
        return plain(flag) in self.names

    def nearest(self, flag: str) -> str | None:
        """The flag that was probably meant, if there is one."""
        name = plain(flag)
        alike = sorted(known for known in self.names if known.startswith("--") == name.startswith("--"))
        if longer := [known for known in alike if known.startswith(name) and len(name) > len("--x")]:
            return min(longer, key=len)
        close = get_close_matches(name, alike, n=1, cutoff=_LIKENESS)
        return close[0] if close else None


def plain(flag: str) -> str:
    """A flag as the program's help spells it: no ``_`` in it, and without the part of a JSON value that it sets.

    ``--compilation_config.mode`` is ``--compilation-config``.
    """
    name = flag.split(".", 1)[0]
    return name.replace("_", "-") if name.startswith("--") else name


def flags_of(help_text: str) -> frozenset[str]:
    """Every spelling of every flag that a help text of ``argparse`` describes."""
    found: set[str] = set()
    for entry in _ENTRY.findall(help_text):
        # Values that the flag may have stand in braces or brackets, and may hold commas and flags' own look.
        found.update(_SPELLING.findall(re.sub(r"\{[^}]*\}?|\[[^\]]*\]?", "", entry)))
    return frozenset(found)


def public_version(version: str | None) -> str | None:
    """A version without what a build adds to it: ``0.32.0+cpu`` has the flags of ``0.32.0``."""
    return None if version is None else version.split("+", 1)[0]


def unknown_flags(flags: Iterable[str], known: FlagList, *, program: str, advice: str = "") -> list[str]:
    """A sentence for each of ``flags`` that ``known`` lacks, with the nearest one that there is."""
    faults = []
    for flag in dict.fromkeys(flags):
        if known.knows(flag):
            continue
        nearest = known.nearest(flag)
        meant = f"; did you mean {nearest}?" if nearest else ""
        faults.append(f"Backend parameter {flag} is not known to {program} {known.version}{meant}{advice}")
    return faults
