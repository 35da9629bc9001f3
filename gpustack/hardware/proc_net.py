"""Finds a TCP socket of this machine in ``/proc/net/tcp`` and ``tcp6``, for systems without sock_diag."""

from __future__ import annotations

import sys
import time
from pathlib import Path

import attrs

from gpustack.hardware.sock_diag import ALIVE, user_of
from gpustack.http1.address import AddressPair, Ip

TABLES = Path("/proc/self/net")
_MAPPED = b"\0" * 10 + b"\xff\xff"
_LOOK_AT_CLOCK = 1024
"""Lines between two looks at the clock."""


@attrs.frozen
class _SocketEntry:
    """One socket: its user and inode."""

    user: int
    inode: int


def owner_in_tables(ends: AddressPair, until: float, tables: Path = TABLES) -> int | None:
    """The user of the socket at ``ends.there``; ``None`` where it is not there, or not found before ``until``.

    Raises ``OSError`` where there are no such tables.
    """
    first = _find(ends, until, tables)
    if first is None or not first.inode:
        return None
    # The line of a socket that is being closed shows root as its user; a moment later it has no inode.
    again = _find(ends, until, tables)
    return user_of(first.user) if again == first else None


def _find(ends: AddressPair, until: float, tables: Path) -> _SocketEntry | None:
    wanted = _spelt(ends, as_ipv6=False)
    names = {"tcp": wanted} if ends.there[0].version == 4 else {}
    # A program may use an IPv6 socket for IPv4.
    names["tcp6"] = _spelt(ends, as_ipv6=True)
    for name, wanted in names.items():
        try:
            found = _search(tables / name, wanted, until)
        except FileNotFoundError:
            if name == "tcp6":  # IPv6 is off
                continue
            raise
        if found is not None:
            return found
    return None


def _search(table: Path, wanted: str, until: float) -> _SocketEntry | None:
    with table.open(encoding="ascii", errors="replace") as lines:
        for number, line in enumerate(lines):
            if number % _LOOK_AT_CLOCK == 0 and time.monotonic() > until:
                return None
            if wanted not in line:
                continue
            fields = line.split()
            if int(fields[3], 16) in ALIVE:
                return _SocketEntry(int(fields[7]), int(fields[9]))
    return None


def _spelt(ends: AddressPair, *, as_ipv6: bool) -> str:
    return " ".join(f"{_address(ip, as_ipv6=as_ipv6)}:{port:04X}" for ip, port in (ends.there, ends.here))


def _address(ip: Ip, *, as_ipv6: bool) -> str:
    """The address as the tables write it: words of 32 bits in this machine's byte order, in hexadecimal."""
    raw = _MAPPED + ip.packed if as_ipv6 and ip.version == 4 else ip.packed
    words = (raw[at : at + 4] for at in range(0, len(raw), 4))
    return "".join(f"{int.from_bytes(word, sys.byteorder):08X}" for word in words)
