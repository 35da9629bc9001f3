"""Reads what pip, uv and pipx write: how far an installation is, and in one sentence why it failed."""

from __future__ import annotations

import bisect
import re
from collections import deque
from collections.abc import Iterable

import attrs

from gpustack.artifacts.disk import NoSpace
from gpustack.errors import GpustackError, NotFound, Unavailable
from gpustack.text import printable, redacted

LONGEST_LINE = 2000
"""Characters of a line that are kept."""
_KEPT = 400
_NEAREST = 4

_LOGIN = re.compile(r"://[^/\s@]+@")
_PHASES: tuple[tuple[re.Pattern[str], str], ...] = (
    (re.compile(r"^\s*Collecting ([\w.\[\]-]+)"), "looking for {}"),
    (
        re.compile(r"^\s*Downloading (?:\S*/)?([\w.]+-\d[\w.+]*?)(?:-\S*)?(?:\.tar\.gz)? \((.+?)\)"),
        "fetching {} ({})",
    ),
    (re.compile(r"^\s*Downloading ([\w.-]+) \((.+?)\)"), "fetching {} ({})"),
    (re.compile(r"^\s*Building (?:wheels? for collected packages: )?([\w.,= -]+)"), "building {}"),
    (re.compile(r"^\s*Resolved (\d+) packages?"), "fetching {} packages"),
    (re.compile(r"^\s*Prepared (\d+) packages?"), "installing {} packages"),
    (re.compile(r"^\s*Installing collected packages: (.*)"), "installing {}"),
    (re.compile(r"(?i)^\s*creating virtual environment"), "making the environment"),
    (re.compile(r"(?i)^\s*installing (\S+) from spec"), "installing {}"),
)
_NO_VERSION = re.compile(
    r"Could not find a version that satisfies the requirement (\S+?)(?:\s.*)? \(from versions: (.*?)\)\s*$"
)
_NO_VERSION_OF_UV = re.compile(r"there (?:is|are) no versions? of ([\w.-]+)(?:\[[^\]]*\])?==?(\S+)")
_UNKNOWN_TO_UV = re.compile(
    r"([\w.-]+) was not found in the (?:package registry|provided package locations|cache)"
)
_REASONS = re.compile(
    r"(Temporary failure in name resolution|Name or service not known|Connection refused|Network is unreachable"
    r"|No route to host|Connection timed out|Read timed out|Cannot connect to proxy|tunnel error|dns error"
    r"|CERTIFICATE_VERIFY_FAILED|invalid peer certificate)"
)
_UNREACHABLE = re.compile(
    r"(NewConnectionError|ConnectTimeoutError|NameResolutionError|ProxyError|client error \(Connect\)"
    r"|error sending request|SSLCertVerificationError)"
)
_FULL = re.compile(r"No space left on device|Errno 28\b|os error 28\b|Disk quota exceeded")
_WRONG_PYTHON = re.compile(
    r"(?i)requires a different python|requires-python|requires python|different python version"
)
_CONFLICT = re.compile(r"ResolutionImpossible|No solution found when resolving|conflicting dependencies")
_CONFLICTING = re.compile(r"Because .+|Cannot install .+")
_UNBUILT = re.compile(r"(?i)subprocess-exited-with-error|Failed to build|Failed building wheel")
_ERROR = re.compile(r"(?i)^\s*(?:error|ERROR|×)\s*:?\s*(.+)")


@attrs.define(eq=False)
class InstallOutput:
    """What has been written so far; ``feed`` it line by line."""

    phase: str = "beginning"
    """How far it is, in words."""
    _lines: deque[str] = attrs.field(factory=lambda: deque(maxlen=_KEPT))

    def feed(self, line: str) -> str:
        """Take in a line; return it as it may be shown: on one line, without logins of indexes and proxies."""
        shown = printable(_LOGIN.sub("://***@", redacted(line.rstrip()[:LONGEST_LINE])), LONGEST_LINE)
        self._lines.append(shown)
        for pattern, said in _PHASES:
            if (found := pattern.match(shown)) is not None:
                self.phase = said.format(*(_short(group) for group in found.groups()))
                break
        return shown

    def failure(self, what: str, package: str, place: str, exit_in_words: str) -> GpustackError:
        """Why ``what`` (``vllm 0.11.0``) was not installed in ``place``."""
        begin = f"{what} cannot be installed"
        if self._says(_FULL):
            return NoSpace(
                f"{begin}: the disk of {place} is full; free some space, or move the data directory"
            )
        unreachable = self._unreachable()
        if (found := self._find(_NO_VERSION)) is not None:
            return _no_version(begin, package, found[1], found[2], unreachable)
        if unreachable:
            return Unavailable(_offline(begin, unreachable))
        if (found := self._find(_NO_VERSION_OF_UV)) is not None:
            return NotFound(f"{begin}: the package index has no {found[1]} {found[2].strip(',.')}")
        if (found := self._find(_UNKNOWN_TO_UV)) is not None:
            return NotFound(f"{begin}: the package index has no {found[1]}; {_INDEX}")
        if self._says(_WRONG_PYTHON):
            return Unavailable(
                f"{begin}: it does not run with the Python of GPUStack here ({self._last_error()})"
            )
        if self._says(_CONFLICT):
            found = self._find(_CONFLICTING)
            why = self._last_error() if found is None else found[0][:300]
            return Unavailable(
                f"{begin}: what it requires does not go together ({why}); GPUSTACK_BACKEND_DEPS in the "
                "deployment's environment names other requirements"
            )
        if self._says(_UNBUILT):
            return Unavailable(
                f"{begin}: a package of it has no wheel for this machine and could not be built ({self._last_error()})"
            )
        return Unavailable(f"{begin}: {exit_in_words}; {self._last_error() or 'it said nothing'}")

    def _unreachable(self) -> str:
        """Why an index or a file could not be reached; empty if that was not the fault."""
        found = self._find(_REASONS) or self._find(_UNREACHABLE)
        return "" if found is None else str(found[1])

    def _find(self, pattern: re.Pattern[str]) -> re.Match[str] | None:
        """The last match; sentences that uv breaks over lines are searched as a whole as well."""
        whole = " ".join(line.strip(" │╰─▶") for line in self._lines)
        return next(
            (found for line in (*reversed(self._lines), whole) if (found := pattern.search(line))), None
        )

    def _says(self, pattern: re.Pattern[str]) -> bool:
        return self._find(pattern) is not None

    def _last_error(self) -> str:
        marked = [found[1] for line in self._lines if (found := _ERROR.match(line))]
        plain = [line.strip() for line in self._lines if line.strip()]
        last = (marked or plain or [""])[-1]
        return last[:300]


_INDEX = (
    "PIP_INDEX_URL (for uv UV_INDEX_URL) in the worker's environment names another index, and --engine-path an "
    "environment that you made yourself"
)


def _offline(begin: str, reason: str) -> str:
    return f"{begin}: could not reach the package index ({reason}); {_INDEX}"


def _no_version(begin: str, package: str, requirement: str, versions: str, unreachable: str) -> GpustackError:
    there = [version.strip() for version in versions.split(",") if version.strip() not in ("", "none")]
    if not there and unreachable:
        return Unavailable(_offline(begin, unreachable))
    name = re.split(r"[\[=<>!~]", requirement, maxsplit=1)[0]
    if not there:
        return NotFound(f"{begin}: the package index has no {name}; {_INDEX}")
    wanted = requirement.rpartition("==")[2]
    near = ", ".join(nearest(wanted, there))
    if _same_name(name, package):
        return NotFound(f"{begin}: the package index has no such version; the nearest are {near}")
    return NotFound(f"{begin}: it needs {requirement}, and the package index has {near}")


def nearest(wanted: str, versions: Iterable[str]) -> list[str]:
    """The few of ``versions`` that are nearest to one, the lowest first."""
    ordered = sorted(dict.fromkeys(versions), key=_sortable)
    at = bisect.bisect(ordered, _sortable(wanted), key=_sortable)
    return ordered[max(0, min(at - _NEAREST // 2, len(ordered) - _NEAREST)) :][:_NEAREST]


def _sortable(version: str) -> tuple[tuple[int, str], ...]:
    parts = re.findall(r"\d+|[a-z]+", version.lower())
    # A letter (a, b, rc) comes before the number that follows the same release without one.
    return (*((int(part), "~") if part.isdigit() else (-1, part) for part in parts), (0, ""))


def _same_name(one: str, other: str) -> bool:
    return re.sub(r"[-_.]+", "-", one).lower() == re.sub(r"[-_.]+", "-", other).lower()


def _short(text: str) -> str:
    return text if len(text) <= 60 else f"{text.count(',') + 1} packages" if "," in text else f"{text[:60]}…"
