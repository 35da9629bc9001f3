"""Fetches one file in ranges, several at a time, with retries, so that files of 40 GB survive network failures."""

from __future__ import annotations

import logging
import random
from collections import Counter
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import attrs
import trio

from gpustack.artifacts.disk import CorruptFile, disk
from gpustack.artifacts.listing import RemoteFile
from gpustack.artifacts.partial import ByteRanges, FileDigest, PartialFile, Range, discard, part_of
from gpustack.artifacts.peer import EMPTY_PAUSE, NO_PEERS, UNREACHABLE_PAUSE, PeerFault, PeerGroup
from gpustack.artifacts.range_request import (
    RedirectTarget,
    SourceChanged,
    TransientError,
    final_error,
    first_byte,
    open_range,
)
from gpustack.domain.unit import human_bytes
from gpustack.errors import GpustackError, TooManyRequests, Unavailable
from gpustack.remote.http import (
    BadResponse,
    HttpClient,
    RemoteConnectionError,
    RemoteError,
    RemoteTimeout,
    StreamedResponse,
    shown,
)

log = logging.getLogger(__name__)

HUB = "hub"
"""How the source is called among those that bytes come from."""
_LAST_WRITE = 10.0
"""Seconds that writing the received bytes may take after a cancellation."""


@attrs.frozen(kw_only=True)
class FetchRules:
    """``segment_size`` and ``block`` are in bytes, waits and ``save_period`` in seconds.

    ``segments`` is the number of ranges fetched at once, ``segment_size`` the largest one, ``block`` that of a write.
    Small ranges let the hash, which goes from the beginning on, follow closely behind what comes.
    ``attempts`` is the number of failures in a row without a new byte, ``restarts`` how often the source may change.
    A peer may take ``peer_patience`` for a range, and what it takes at ``peer_speed`` bytes a second: one that sends a
    byte now and then is never silent, and would keep the source from being asked.
    """

    segments: int = 4
    segment_size: int = 16 << 20
    block: int = 1 << 20
    attempts: int = 8
    first_wait: float = 0.5
    longest_wait: float = 30.0
    longest_told_wait: float = 300.0
    save_period: float = 2.0
    restarts: int = 3
    peer_patience: float = 30.0
    peer_speed: int = 256 << 10


async def fetch(
    file: RemoteFile,
    target: Path,
    *,
    client: HttpClient,
    rng: random.Random,
    rules: FetchRules,
    on_progress: Callable[[int], None],
    on_open: Callable[[PartialFile], None] = lambda partial: None,
    peers: PeerGroup = NO_PEERS,
    origins: Counter[str] | None = None,
) -> None:
    """Fetch ``file`` to ``target`` and verify it; ``on_progress`` gets the number of bytes on disk.

    ``peers`` are asked first, and the source for what they do not give; ``origins`` counts the bytes of each, the
    source's as ``HUB``. ``on_open`` gets the file whose bytes come, before the first of them.

    Continues where an earlier call was cancelled or killed. ``target`` appears by a rename once size and hash are
    right; a file that fails verification is removed and fetched once more, from the source alone. The caller holds the
    lock on ``target``. Cancellable at any time; the bytes on disk are kept. Raises CorruptFile, NoSpace, Forbidden,
    NotFound, TooManyRequests, RemoteError and other Unavailable, OSError.
    """
    counted = Counter[str]() if origins is None else origins
    before = counted.copy()
    for asked in (peers, NO_PEERS):
        partial = await disk.run(PartialFile.open, file, target)
        try:
            on_open(partial)
            download = _Download(partial, client, rng, rules, on_progress, asked, counted)
            await download.run()
            if await matches_announced(file, part_of(target), download.digest):
                await disk.run(partial.finish)
                return
        finally:
            partial.close()
        await disk.run(discard, target)
        for peer in peers.peers:
            if counted[peer.name] > before[peer.name]:
                peers.set_aside(peer, None, UNREACHABLE_PAUSE)
                log.warning(
                    "A file with bytes of a worker was wrong: file=%s worker=%s", file.name, peer.name
                )
        counted.clear()
        counted.update(before)
        on_progress(0)
    raise CorruptFile(
        f"{file.name} was fetched from {shown(file.url)} twice and both times was not what is announced there "
        f"(size {human_bytes(file.size)}, hash {(file.sha256 or file.git_sha1 or 'unknown')[:16]}): the source or a "
        "proxy on the way alters it"
    )


async def matches_announced(file: RemoteFile, path: Path, begun: FileDigest | None = None) -> bool:
    """Whether the file at ``path`` has the announced size and hash. Reads all of it; cancellable every 32 MiB.

    What ``begun`` has read already is not read again.
    """
    digest = begun or FileDigest(path, file)
    if not digest.has_hash:
        return (await trio.Path(path).stat()).st_size == file.size
    while await disk.run(digest.advance):
        pass
    return digest.matches


@attrs.define(eq=False)
class _Segment:
    """A range that is being fetched: ``at`` is the next byte to write and moves towards ``end``."""

    at: int
    end: int


@attrs.define(eq=False)
class _Download:
    """The download of one file: several tasks take missing segments until none is left."""

    partial: PartialFile
    client: HttpClient
    rng: random.Random
    rules: FetchRules
    on_progress: Callable[[int], None]
    peers: PeerGroup
    origins: Counter[str]
    digest: FileDigest = attrs.field(init=False)
    """Reads what has come in one piece from the beginning, while the rest comes."""
    moved: trio.lowlevel.ParkingLot = attrs.field(factory=trio.lowlevel.ParkingLot)
    """Who waits for more bytes."""
    from_peers: bool = False
    active: list[_Segment] = attrs.field(factory=list)
    place: RedirectTarget | None = None
    """Where the last redirect led: asked directly while it answers."""
    takes_ranges: bool | None = None
    changed: bool = False
    fault: GpustackError | OSError | None = None

    @property
    def file(self) -> RemoteFile:
        return self.partial.file

    async def run(self) -> None:
        for _ in range(self.rules.restarts + 1):
            self.changed = False
            self.digest = FileDigest(part_of(self.partial.target), self.file)
            self.on_progress(self.partial.done.size)
            try:
                await self._all_segments()
            finally:
                with trio.CancelScope(shield=True, deadline=trio.current_time() + _LAST_WRITE):
                    await disk.run(self.partial.save)
            if self.fault is not None:
                raise self.fault
            if not self.changed:
                return
            await disk.run(self.partial.restart)
            self.place, self.takes_ranges = None, None
        raise Unavailable(f"{self.file.name} keeps changing on {shown(self.file.url)} while it is fetched")

    async def _all_segments(self) -> None:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._save_periodically, nursery.cancel_scope)
            if self.digest.has_hash:
                nursery.start_soon(self._hash_along, nursery.cancel_scope)
            async with trio.open_nursery() as tasks:
                first = trio.Event()
                tasks.start_soon(self._work, tasks.cancel_scope, first)
                await first.wait()  # only its answer says whether the server supports ranges
                if self.takes_ranges or self.from_peers:
                    for _ in range(self.rules.segments - 1):
                        tasks.start_soon(self._work, tasks.cancel_scope, first)
            nursery.cancel_scope.cancel()

    async def _save_periodically(self, everything: trio.CancelScope) -> None:
        try:
            while True:
                await trio.sleep(self.rules.save_period)
                await disk.run(self.partial.save)
                # So that little is left to wait for when the file is put in its place.
                await disk.run(self.partial.flush, abandon=True)
        except (GpustackError, OSError) as error:
            self.fault = self.fault or error
            everything.cancel()

    async def _hash_along(self, everything: trio.CancelScope) -> None:
        """Hash the bytes that have come, so that little is left to read when the last one is there."""
        try:
            while True:
                here = self.partial.done.reach(0)
                if self.digest.place < here:
                    await disk.run(self.digest.advance, here)
                else:
                    await self.moved.park()
        except OSError as error:
            self.fault = self.fault or error
            everything.cancel()

    async def _work(self, all_tasks: trio.CancelScope, accepted: trio.Event) -> None:
        try:
            while (segment := self._take()) is not None:
                try:
                    await self._fetch(segment, accepted)
                finally:
                    self.active.remove(segment)
        except SourceChanged:
            self.changed = True
            all_tasks.cancel()
        except (GpustackError, OSError) as error:
            self.fault = self.fault or error
            all_tasks.cancel()
        finally:
            accepted.set()

    def _open_ranges(self) -> tuple[Range, ...]:
        """The ranges that are neither on disk nor being fetched."""
        taken = ByteRanges.of(
            (*self.partial.done.parts, *((segment.at, segment.end) for segment in self.active))
        )
        return taken.missing(self.file.size)

    def _take(self) -> _Segment | None:
        ranges = self._open_ranges()
        if not ranges:
            return None
        start, end = ranges[0]
        segment = _Segment(start, min(end, start + self.rules.segment_size))
        self.active.append(segment)
        return segment

    async def _fetch(self, segment: _Segment, accepted: trio.Event) -> None:
        failures = 0
        while segment.at < segment.end:
            if await self._ask_peer(segment, accepted):
                continue
            before = segment.at
            try:
                await self._request(segment, accepted)
            except (RemoteConnectionError, RemoteTimeout, TransientError) as error:
                failures = 1 if segment.at > before else failures + 1
                if failures >= self.rules.attempts:
                    raise self._given_up(error) from error
                await trio.sleep(
                    self._wait(failures, error.wait if isinstance(error, TransientError) else None)
                )

    def _given_up(self, error: RemoteError | TransientError) -> GpustackError:
        fault = final_error(error)
        kind = TooManyRequests if isinstance(fault, TooManyRequests) else Unavailable
        return kind(
            f"{self.file.name} could not be fetched in {self.rules.attempts} tries: {fault}; what has come is kept"
        )

    def _wait(self, failures: int, told: float | None) -> float:
        """Seconds before the next try: growing, and random, so that not all clients come back at the same time."""
        if told is not None:
            return min(told, self.rules.longest_told_wait) + self.rng.uniform(0, self.rules.first_wait)
        ceiling = min(self.rules.first_wait * 2.0 ** (failures - 1), self.rules.longest_wait)
        return ceiling * self.rng.uniform(0.5, 1.0)

    async def _ask_peer(self, segment: _Segment, accepted: trio.Event) -> bool:
        """Take what the best peer has of ``segment``; false when there is none to ask."""
        peer = self.peers.pick(self.file)
        if peer is None:
            return False
        before = segment.at
        longest = self.rules.peer_patience + (segment.end - segment.at) / self.rules.peer_speed
        fault: PeerFault | None = None
        with trio.move_on_after(longest) as patience:
            try:
                async with peer.open_range(self.file, segment.at, segment.end) as pieces:
                    self.from_peers = True
                    accepted.set()
                    await self._receive(pieces, segment, segment.at, peer.name)
            except PeerFault as error:
                fault = error
        if patience.cancelled_caught:
            fault = PeerFault("it is too slow", pause=UNREACHABLE_PAUSE, everything=True)
        if fault is not None:
            self.peers.set_aside(peer, None if fault.everything else self.file, fault.pause)
            log.info(
                "Not fetched from a worker: file=%s worker=%s reason=%s", self.file.name, peer.name, fault
            )
        elif segment.at == before:
            self.peers.set_aside(peer, self.file, EMPTY_PAUSE)
        return True

    async def _request(self, segment: _Segment, accepted: trio.Event) -> None:
        """Send one request for the missing rest of ``segment``."""
        async with open_range(self.client, self.file, segment.at, segment.end, place=self.place) as incoming:
            start = self._accept(incoming, segment)
            self.place = RedirectTarget(incoming.url, incoming.address)
            accepted.set()
            goes_on = incoming.status == 200
            await self._receive(incoming.pieces(), segment, start, HUB, goes_on=goes_on)
            if segment.at < segment.end:
                raise TransientError(BadResponse(incoming.url, "ended early"))

    def _accept(self, incoming: StreamedResponse, segment: _Segment) -> int:
        """The offset at which the answer begins; raises SourceChanged, or BadResponse for bytes that nobody wanted."""
        etag = incoming.headers.get("etag")
        # A hash holds for all mirrors of a hub, an ETag only for the machine that sent it.
        told = self.file.sha256 or self.file.git_sha1
        if told is None and self.partial.etag is not None and etag != self.partial.etag:
            raise SourceChanged
        start = first_byte(incoming, self.file, segment.at, segment.end)
        if incoming.status == 206:
            self.takes_ranges = True
        elif self.takes_ranges is None:
            self.takes_ranges = (
                False  # the answer is the whole file: this segment goes on to the end of the gap
            )
            segment.end = next(
                (end for begin, end in self._open_ranges() if begin == segment.end), segment.end
            )
        self.partial.etag = etag
        return start

    async def _receive(
        self,
        pieces: AsyncIterator[bytes],
        segment: _Segment,
        start: int,
        origin: str,
        *,
        goes_on: bool = False,
    ) -> None:
        """Write the bytes of an answer that begins at ``start`` into ``segment``; those before a failure are kept.

        ``goes_on``: the answer may not end with the segment, and what comes after it is not read.
        """
        gathered = bytearray()
        skip = segment.at - start
        try:
            async for part in pieces:
                kept = part[skip:] if skip else part
                skip = max(skip - len(part), 0)
                gathered += kept[: segment.end - segment.at - len(gathered)]
                is_last = len(gathered) >= segment.end - segment.at
                if is_last or len(gathered) >= self.rules.block:
                    await self._write(segment, gathered, origin)
                if is_last and goes_on:
                    return  # the answer goes on beyond the segment
        finally:
            with trio.CancelScope(shield=True, deadline=trio.current_time() + _LAST_WRITE):
                await self._write(segment, gathered, origin)

    async def _write(self, segment: _Segment, gathered: bytearray, origin: str) -> None:
        if not gathered:
            return
        block = bytes(gathered)
        gathered.clear()
        await disk.run(self.partial.write, segment.at, block)
        self.partial.done = self.partial.done.plus(segment.at, segment.at + len(block))
        segment.at += len(block)
        self.origins[origin] += len(block)
        self.moved.unpark_all()
        self.on_progress(self.partial.done.size)
