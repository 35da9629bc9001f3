"""Other machines of the cluster that have a file or are fetching it: they are asked for its bytes before the hub."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import AbstractAsyncContextManager
from typing import Protocol

import attrs
import trio

from gpustack.artifacts.listing import RemoteFile

FAULT_PAUSE = 60.0
"""Seconds for which a peer that failed is not asked for the same file again."""
EMPTY_PAUSE = 10.0
"""Seconds for which a peer that had no more bytes of a file is not asked for it again."""
UNREACHABLE_PAUSE = 600.0
"""Seconds for which a peer that cannot be reached, is too slow or gave wrong bytes is not asked for anything."""


class PeerFault(Exception):
    """A peer cannot be reached, does not have the file, has too much to do, or broke off. ``str()`` is a clause.

    It is not asked for the file again for ``pause`` seconds; ``everything``: nor for any other.
    """

    def __init__(self, fault: str, *, pause: float = FAULT_PAUSE, everything: bool = False) -> None:
        self.pause, self.everything = pause, everything
        super().__init__(fault)


class FilePeer(Protocol):
    """A machine that serves what it has of files, by their hashes."""

    @property
    def name(self) -> str: ...

    def open_range(
        self, file: RemoteFile, start: int, end: int
    ) -> AbstractAsyncContextManager[AsyncIterator[bytes]]:
        """The bytes of ``file`` from ``start`` on, up to ``end`` at most: fewer come when it has no more yet.

        Entering and iterating raise PeerFault. Cancellable at any time.
        """
        ...


@attrs.define(eq=False, repr=False)
class PeerGroup:
    """The peers that may have the files of one listing, the best first."""

    peers: Sequence[FilePeer] = ()
    _aside: dict[tuple[str, str | None], float] = attrs.field(factory=dict)
    """Until when a peer (by name) is not asked for a file (by name; ``None``: for any), by Trio's clock."""

    def pick(self, file: RemoteFile) -> FilePeer | None:
        """The peer to ask for bytes of ``file``; ``None``: ask the hub."""
        if file.sha256 is None:  # peers know files by their hash
            return None
        now = trio.current_time()
        for peer in self.peers:
            if all(self._aside.get((peer.name, what), now) <= now for what in (None, file.name)):
                return peer
        return None

    def set_aside(self, peer: FilePeer, file: RemoteFile | None, seconds: float) -> None:
        """Do not ask ``peer`` for ``file`` (for anything, if it is ``None``) for so long."""
        self._aside[peer.name, None if file is None else file.name] = trio.current_time() + seconds

    def __repr__(self) -> str:
        return f"<PeerGroup: {len(self.peers)} peers, {len(self._aside)} times one was set aside>"


NO_PEERS = PeerGroup()
