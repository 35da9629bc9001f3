"""Replaces in a dump what tells whose machine it is: serial numbers, uuids, names of hosts and users, addresses, pids.

The same text is replaced by the same one everywhere, so that what refers to a device still does, and a detector reads
the same of what is replaced.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Iterable
from typing import Any

import attrs

_UUID = re.compile(r"\b[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}\b", re.IGNORECASE)
_UNIQUE = re.compile(r"(?<![0-9a-f])(?P<x>0x)?(?P<hex>[0-9a-f]{16})(?![0-9a-f])", re.IGNORECASE)
"""The 64 bits by which AMD and Hygon tell cards apart."""
_UNIQUE_DECIMAL = re.compile(r"(?<=unique_id )\d{1,20}")
"""The same as the kernel writes it."""
_NAMED = re.compile(
    r"(?P<key>\b(?:\w*serial|guid|s/n|sn|imei|board id)\b[\w /()-]{0,24}\"?\s*[:=]\s*\"?)(?P<value>[\w.-]{4,64})",
    re.IGNORECASE,
)
_MAC = re.compile(r"(?<![\w:])(?:[0-9a-f]{2}[:-]){5}[0-9a-f]{2}(?![\w:])", re.IGNORECASE)
_IPV4 = re.compile(r"(?<![\w.])(?:\d{1,3}\.){3}\d{1,3}(?![\w.])")
_IPV6 = re.compile(
    r"(?<![\w:.])(?=[0-9a-f:]*:[0-9a-f:]*:)[0-9a-f]{0,4}(?::[0-9a-f]{0,4}){2,7}(?![\w:.])", re.IGNORECASE
)
_HOME = re.compile(r"(?<=/home/)[^/\s\"']+|(?<=/Users/)[^/\s\"']+")
PROCESSES = "/sys/class/kfd/kfd/proc"
"""The folder in which AMD's kernel driver has a folder for each process, named by its pid."""
_PROCESS = re.compile(rf"(?<={PROCESSES}/)\d{{1,10}}(?![^/])")
_TABLES = (
    re.compile(r"^(\|\s*\d+\s+\d+\s*\|\s*)(\d{1,10})(\s*\|\s*)[^|\n]+?(\s*\|\s*\d+\s*\|)$", re.MULTILINE),
    re.compile(r"^(\|\s*\d{1,4}\s+)(\d{1,10})(\s+)[^|\n]+?(\s+\d+\s*\|)$", re.MULTILINE),
)
"""Lines of tables of processes, as npu-smi and mx-smi draw them: device, pid, name, memory."""
_UNKNOWN = frozenset({"n/a", "none", "null", "unknown"})


@attrs.define(eq=False)
class Redaction:
    """``names`` are those of this host and its users, ``addresses`` its own."""

    names: Iterable[str] = ()
    addresses: Iterable[str] = ()
    _given: dict[tuple[str, str], str] = attrs.field(factory=dict)
    _name: re.Pattern[str] | None = attrs.field(init=False)

    def __attrs_post_init__(self) -> None:
        words = sorted({name for name in self.names if len(name) > 2}, key=len, reverse=True)
        joined = "|".join(map(re.escape, words))
        self._name = re.compile(rf"(?<![\w-])(?:{joined})(?![\w-])") if words else None

    def document(self, value: Any) -> Any:
        """The same of JSON's kind, with every text in it replaced; of objects, pids too."""
        if isinstance(value, str):
            return self.text(value)
        if isinstance(value, list | tuple):
            return [self.document(one) for one in value]
        if isinstance(value, dict):
            if value.get("names") == PROCESSES:
                value = {**value, "found": [self._pid(name) for name in value.get("found") or ()]}
            return {self.text(key): self._field(key, one) for key, one in value.items()}
        return value

    def _pid(self, name: object) -> object:
        return self._number("pid", name) if isinstance(name, str) and name.isdecimal() else name

    def _field(self, key: str, value: Any) -> Any:
        if key == "pid" and isinstance(value, int):
            return int(self._number("pid", str(value)))
        if key == "by_process" and isinstance(value, dict):
            return {self._number("pid", str(pid)): held for pid, held in value.items()}
        if key == "left" and isinstance(value, list | tuple):
            return [[int(self._number("pid", str(pid))), 0] for pid, _ in value]
        return self.document(value)

    def text(self, text: str) -> str:
        """A text in which every kind is replaced."""
        text = _UUID.sub(lambda found: self._uuid(found[0].lower()), text)
        text = _UNIQUE.sub(self._unique, text)
        text = _UNIQUE_DECIMAL.sub(
            lambda found: str(int(self._hexadecimal(f"{int(found[0]):016x}"), 16)), text
        )
        text = _NAMED.sub(self._named, text)
        text = _MAC.sub(lambda found: self._mac(found[0].lower()), text)
        text = _IPV4.sub(self._address, text)
        text = _IPV6.sub(self._address, text)
        text = _PROCESS.sub(lambda found: self._number("pid", found[0]), text)
        text = _HOME.sub(lambda found: f"user{self._number('user', found[0])}", text)
        for table in _TABLES:
            text = table.sub(
                lambda found: f"{found[1]}{self._number('pid', found[2])}{found[3]}program{found[4]}", text
            )
        if self._name is not None:
            text = self._name.sub(lambda found: f"name{self._number('name', found[0])}", text)
        return text

    def _number(self, kind: str, was: str) -> str:
        """1 for the first of a kind, and so on."""
        known = self._given.get((kind, was))
        if known is None:
            known = str(1 + sum(1 for other, _ in self._given if other == kind))
            self._given[kind, was] = known
        return known

    def _uuid(self, was: str) -> str:
        return f"00000000-0000-0000-0000-{int(self._number('uuid', was)):012d}"

    def _hexadecimal(self, was: str) -> str:
        return f"{int(self._number('unique', was.lower())):016x}"

    def _unique(self, found: re.Match[str]) -> str:
        if int(found["hex"], 16) == 0:
            return found[0]
        return f"{found['x'] or ''}{self._hexadecimal(found['hex'])}"

    def _named(self, found: re.Match[str]) -> str:
        is_known = found["value"].lower() not in _UNKNOWN and not _UNIQUE.fullmatch(found["value"])
        return f"{found['key']}serial{self._number('serial', found['value'])}" if is_known else found[0]

    def _mac(self, was: str) -> str:
        return f"02:00:00:00:00:{int(self._number('mac', was)) % 256:02x}"

    def _address(self, found: re.Match[str]) -> str:
        """Private ones and the host's own. Versions have four numbers too, so others stay."""
        try:
            address = ipaddress.ip_address(found[0])
        except ValueError:
            return found[0]
        if (
            address.is_loopback
            or address.is_unspecified
            or not (address.is_private or address.is_link_local or found[0] in set(self.addresses))
        ):
            return found[0]
        number = int(self._number("address", found[0]))
        return f"192.0.2.{number % 256}" if address.version == 4 else f"2001:db8::{number:x}"
