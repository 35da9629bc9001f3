"""Which user's program is at the other end of a connection within this machine, as its kernel tells."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable

import trio

from gpustack.hardware.proc_net import owner_in_tables
from gpustack.hardware.sock_diag import owner_by_netlink
from gpustack.http1.address import AddressPair
from gpustack.nursery.limiter import threads

_PATIENCE = 2.0
"""Seconds for lookups that search long lists."""
_THREADS = threads("owners of connections", 2)

OwnerLookup = Callable[[AddressPair, float], int | None]
"""Blocks until an instant of ``time.monotonic`` at most. Raises ``OSError`` where this system does not support it."""


async def find_owner(ends: AddressPair) -> int | None:
    """The user id under which the program at ``ends.there`` made its socket; ``None`` where that cannot be told.

    That is so where the socket is in another network namespace or has just been closed, where its user has no number
    in our user namespace, and where the system tells nobody. Asking the kernel by netlink takes microseconds and is
    done at once; where that is not possible, lists are searched in a thread, for two seconds at most.
    """
    try:
        return owner_by_netlink(ends)
    except OSError:
        await trio.lowlevel.checkpoint()
    return await _THREADS.run(search, ends, time.monotonic() + _PATIENCE)


def search(ends: AddressPair, until: float) -> int | None:
    """The same by searching lists. Blocking until ``until`` at most. Never raises ``OSError``."""
    for look in _LOOKUPS:
        try:
            return look(ends, until)
        except OSError:
            continue
    return None


def owner_of_process(ends: AddressPair, until: float) -> int | None:
    """The user of the process that holds the socket, among the processes that we may look into.

    A daemon that is not root sees only processes of its own user: it cannot tell root's from those of others.
    """
    import psutil

    for process in psutil.process_iter():
        if time.monotonic() > until:
            return None
        try:
            if any(_is_established(one, ends) for one in process.net_connections(kind="tcp")):
                return int(process.uids().effective)
        except psutil.Error:
            continue
    return None


def _is_established(one: object, ends: AddressPair) -> bool:
    there, here = getattr(one, "laddr", None), getattr(one, "raddr", None)
    if not there or not here or getattr(one, "status", "") != "ESTABLISHED":
        return False
    return AddressPair.of(tuple(there), tuple(here)) == ends


_LOOKUPS: tuple[OwnerLookup, ...] = (owner_in_tables,) if sys.platform == "linux" else (owner_of_process,)
