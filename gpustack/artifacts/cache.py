"""The cache of model files of this machine: fetches, verifies, finds and removes them."""

from __future__ import annotations

import hashlib
import logging
import random
from collections import Counter
from collections.abc import Awaitable, Callable, Iterable, Sequence
from pathlib import Path

import attrs
import trio

from gpustack.artifacts.cache_index import CacheIndex
from gpustack.artifacts.disk import NoSpace, disk, free_bytes, has_size
from gpustack.artifacts.fetch import FetchRules, fetch, matches_announced
from gpustack.artifacts.file_lock import FileLocks
from gpustack.artifacts.listing import Listing, RemoteFile, safe_name
from gpustack.artifacts.partial import PartialFile, kept_bytes, part_of, unfinished_of
from gpustack.artifacts.peer import NO_PEERS, FilePeer, PeerGroup
from gpustack.artifacts.projector import misfit
from gpustack.artifacts.removal import remove
from gpustack.artifacts.repository import NO_EXTRAS, FileExtras
from gpustack.artifacts.shared_file import ArrivingFile, SharedFile
from gpustack.artifacts.source import (
    DEFAULT_LIBRARY,
    DEFAULT_PROJECTOR,
    ModelScopeAccess,
    SourceSettings,
    source_for,
)
from gpustack.artifacts.xet import fetch_by_xet, host_of
from gpustack.domain.artifact import ModelSource
from gpustack.domain.unit import MIB, human_bytes
from gpustack.durable_file import put_in_place
from gpustack.errors import GpustackError, Invalid, Unavailable
from gpustack.remote.http import HttpClient, Timeouts, open_client

log = logging.getLogger(__name__)

SPARE = 256 * MIB
"""Bytes of the disk that downloads leave free, for logs and the database on it."""

_LOCK_PATIENCE = 1.0
"""Seconds to wait for the lock of a file that is to be removed; then somebody is fetching it, and it stays."""


@attrs.frozen(kw_only=True)
class DownloadProgress:
    """How much of a source is on this machine, in bytes. ``done`` may decrease, when a file failed verification.

    ``origin`` is where most of the bytes came from: ``hub``, or the name of a peer; empty when none came yet.
    """

    done: int
    total: int
    origin: str = ""

    @property
    def percent(self) -> float:
        return 100.0 if self.total == 0 else round(self.done / self.total * 100, 2)


@attrs.frozen(kw_only=True)
class LocalFiles:
    """Where the files of a source lie. ``main_path`` is for the engine: the first shard, the file, or the folder."""

    paths: tuple[str, ...]
    main_path: str
    mmproj_path: str | None = None
    size: int = 0


@attrs.frozen(kw_only=True)
class CacheSettings:
    """``endpoint``, ``library``, ``model_scope`` and ``deadline`` (seconds) are for listings, as in ``SourceSettings``.

    ``period`` is the number of seconds between two progress reports. With ``xet``, files that the hub keeps in Xet are
    fetched with the hub's own client first.
    """

    endpoint: str | None = None
    library: str = DEFAULT_LIBRARY
    model_scope: ModelScopeAccess = ModelScopeAccess()
    deadline: float = 60.0
    period: float = 0.5
    xet: bool = False
    rules: FetchRules = FetchRules()
    timeouts: Timeouts = Timeouts()


@attrs.define(eq=False, repr=False)
class Cache:
    """Owner of the folder ``root``. Several tasks and several processes may use it at the same time.

    The index and the locks lie in ``root/.gpustack``.
    """

    root: Path
    rng: random.Random
    settings: CacheSettings = CacheSettings()
    _locks: FileLocks = attrs.field(init=False)
    _index: CacheIndex = attrs.field(init=False)
    _here: dict[Path, int] = attrs.field(factory=dict)
    """The bytes on disk of files that this process is fetching."""
    _still_to_come: dict[Path, int] = attrs.field(factory=dict)
    """The bytes that downloads of this process will still write, by file."""
    _arriving: dict[str, ArrivingFile] = attrs.field(factory=dict)
    """Files that this process is fetching, by their SHA-256, as others may read them."""
    _begun: trio.lowlevel.ParkingLot = attrs.field(factory=trio.lowlevel.ParkingLot)
    """Who waits for a file to be one of them."""

    def __attrs_post_init__(self) -> None:
        if not self.root.is_absolute():
            raise Invalid(f"The cache folder must be an absolute path, not {self.root}")
        self._locks = FileLocks(self.root / ".gpustack" / "claims")
        self._index = CacheIndex(self.root / ".gpustack")

    async def ensure(
        self,
        source: ModelSource,
        *,
        token: str | None = None,
        local_dir: str | None = None,
        projector: str | None = DEFAULT_PROJECTOR,
        extras: FileExtras = NO_EXTRAS,
        progress: Callable[[DownloadProgress], None] = lambda progress: None,
        find_peers: Callable[[], Awaitable[Sequence[FilePeer]]] | None = None,
    ) -> LocalFiles:
        """Bring the files of ``source`` to this machine, fetching what is missing, and return where they are.

        Files that were complete before need no network. ``progress`` is called every ``period`` seconds while files
        are fetched, and once at the end. ``projector`` is the pattern of the projector to fetch with a GGUF model,
        ``extras`` what is wanted of a repository beyond the usual. With ``local_dir`` the files lie in that folder
        instead of the cache. ``find_peers`` is asked, when something must be fetched, who else may have it.

        Cancellable at any time; the bytes fetched so far are kept for the next call. Raises Invalid, BadRequest,
        NotFound, Forbidden, TooManyRequests, or Unavailable (NoSpace, CorruptFile, RemoteError).
        """
        place = source_for(source.kind)
        settings = SourceSettings(
            endpoint=self.settings.endpoint,
            library=self.settings.library,
            token=token,
            model_scope=self.settings.model_scope,
            deadline=self.settings.deadline,
            projector=projector,
            extras=extras,
        )
        if place.is_local:
            listing = await place.resolve(source, settings)
            progress(DownloadProgress(done=listing.size, total=listing.size))
            return _local_files(listing, Path(listing.folder))
        folder = _absolute_folder(local_dir)
        key = _key(source, projector, extras)
        known = await disk.run(self._complete, key, folder)
        if known is not None:
            progress(DownloadProgress(done=known.size, total=known.size))
            return await self._with_projector(_local_files(known, folder or self.root / known.folder))
        listing = await place.resolve(source, settings)
        for file in listing.files:
            safe_name(file.name)
        target = folder or self.root / listing.folder
        begun = _key(source, projector, folder=folder)
        try:
            await disk.run(self._index.begin, begun, listing)
            await self._fetch_all(listing, target, source.readable, progress, find_peers)
            await disk.run(self._index.remember_listing, key, listing)
            await disk.run(self._index.end, begun)
        except OSError as error:
            raise Unavailable(
                f"The files of {source.readable} cannot be kept in {target}: {error.strerror}"
            ) from error
        return await self._with_projector(_local_files(listing, target))

    async def remove(self, paths: Iterable[str], *, local_dir: str | None = None) -> None:
        """Remove files or folders of the cache, or of ``local_dir`` if given, with what is unfinished of them.

        A path that does not exist is ignored. Raises Forbidden for a path elsewhere, Unavailable when the disk refuses.
        Never call it for files of a local path: they belong to the user.
        """
        given = _absolute_folder(local_dir)
        roots = [self.root] if given is None else [self.root, given]
        for path in paths:
            try:
                await disk.run(remove, Path(path), roots)
            except OSError as error:
                raise Unavailable(f"{path} cannot be removed: {error.strerror}") from error
            await disk.run(self._index.forget, Path(path))

    async def drop_unfinished(
        self,
        source: ModelSource,
        *,
        local_dir: str | None = None,
        projector: str | None = DEFAULT_PROJECTOR,
        whole: bool,
    ) -> None:
        """Remove the unfinished files of a source that is not wanted any more; with ``whole`` the complete ones too.

        A file that somebody else is fetching stays. Does nothing for a source that was fetched completely. Raises
        Forbidden and Unavailable as ``remove`` does.
        """
        folder = _absolute_folder(local_dir)
        begun = _key(source, projector, folder=folder)
        listing = await disk.run(self._index.begun, begun)
        if listing is None:
            return
        target = folder or self.root / listing.folder
        for path in [target / file.name for file in listing.files]:
            with trio.move_on_after(_LOCK_PATIENCE):
                async with self._locks.hold(path):
                    gone = [path] if whole else unfinished_of(path)
                    await self.remove([str(one) for one in gone], local_dir=local_dir)
        await disk.run(self._index.end, begun)

    async def shared(self, digest: str, within: float = 0.0) -> SharedFile | None:
        """The file of that SHA-256 for others to read, whole or as far as it has come.

        ``None`` if it is not here nor begins to arrive ``within`` seconds. Only files below the cache's own folder are
        found, and only those that it verified or is fetching itself.
        """
        found = await self._shared_now(digest)
        with trio.move_on_after(within):
            while found is None and within:
                await self._begun.park()
                found = await self._shared_now(digest)
        return found

    async def _shared_now(self, digest: str) -> SharedFile | None:
        if (arriving := self._arriving.get(digest)) is not None:
            partial = arriving.partial
            return SharedFile(path=part_of(partial.target), size=partial.file.size, arriving=arriving)
        found = await disk.run(self._index.content, digest, self.root)
        return None if found is None else SharedFile(path=found[0], size=found[1])

    def _is_own(self, path: Path) -> bool:
        """Whether ``path`` is below the cache's own folder, not in a ``local_dir`` elsewhere. Blocking."""
        return path.resolve().is_relative_to(self.root.resolve())

    async def _with_projector(self, files: LocalFiles) -> LocalFiles:
        """``files``, without a projector whose header does not fit the model: a repository may hold those of others."""
        if files.mmproj_path is None:
            return files
        reason = await disk.run(misfit, Path(files.main_path), Path(files.mmproj_path))
        if reason is None:
            return files
        log.warning(
            "Left out a projector: model=%s file=%s reason=%s", files.main_path, files.mmproj_path, reason
        )
        return attrs.evolve(files, mmproj_path=None)

    def _complete(self, key: str, folder: Path | None) -> Listing | None:
        """The listing in the index, if all of its files are still there unchanged. Blocking."""
        listing = self._index.listing(key)
        if listing is None:
            return None
        target = folder or self.root / listing.folder
        whole = all(self._index.is_verified(file, target / file.name) for file in listing.files)
        return listing if whole else None

    async def _fetch_all(
        self,
        listing: Listing,
        target: Path,
        what: str,
        progress: Callable[[DownloadProgress], None],
        find_peers: Callable[[], Awaitable[Sequence[FilePeer]]] | None,
    ) -> None:
        """Fetch every file of ``listing`` that is missing in ``target``, and report progress meanwhile."""
        complete: dict[str, int] = {}
        origins: Counter[str] = Counter()

        def report() -> None:
            done = sum(self._here.get(target / one.name, complete.get(one.name, 0)) for one in listing.files)
            most = origins.most_common(1)
            progress(DownloadProgress(done=done, total=listing.size, origin=most[0][0] if most else ""))

        async def report_periodically() -> None:
            while True:
                report()
                await trio.sleep(self.settings.period)

        fault: GpustackError | OSError | None = None
        async with trio.open_nursery() as nursery:
            nursery.start_soon(report_periodically)
            try:
                async with open_client(timeouts=self.settings.timeouts) as client:
                    missing = await self._check_space(listing, target, what)
                    peers = PeerGroup(await find_peers()) if missing and find_peers is not None else NO_PEERS
                    for file in listing.files:
                        await self._fetch_one(file, target / file.name, client, peers, origins)
                        complete[file.name] = file.size
            except (GpustackError, OSError) as error:  # the nursery would wrap it in a group
                fault = error
            finally:
                for file in listing.files:
                    self._still_to_come.pop(target / file.name, None)
            nursery.cancel_scope.cancel()
        if fault is not None:
            raise fault
        report()

    async def _fetch_one(
        self,
        file: RemoteFile,
        path: Path,
        client: HttpClient,
        peers: PeerGroup,
        origins: Counter[str],
    ) -> None:
        """Fetch one file under its lock; others who want it wait, then find it complete or continue it."""
        async with self._locks.hold(path):
            if await disk.run(self._index.is_verified, file, path):
                return
            if await disk.run(has_size, path, file.size) and await matches_announced(file, path):
                await disk.run(self._index.remember_verified, file, path)  # a user has put it there
                return

            is_own = await disk.run(self._is_own, path)
            arriving: ArrivingFile | None = None

            def begin(partial: PartialFile) -> None:
                nonlocal arriving
                if file.sha256 is not None and is_own:
                    arriving = self._arriving[file.sha256] = ArrivingFile(partial)
                    self._begun.unpark_all()

            def note_progress(done: int) -> None:
                self._here[path] = done
                self._still_to_come[path] = file.size - done
                if arriving is not None:
                    arriving.moved.unpark_all()

            try:
                by_xet = self.settings.xet and peers.pick(file) is None
                if not (by_xet and await self._fetch_by_xet(file, path, note_progress)):
                    await fetch(
                        file,
                        path,
                        client=client,
                        rng=self.rng,
                        rules=self.settings.rules,
                        on_progress=note_progress,
                        on_open=begin,
                        peers=peers,
                        origins=origins,
                    )
                await disk.run(self._index.remember_verified, file, path)
            finally:
                self._here.pop(path, None)
                self._still_to_come.pop(path, None)
                if arriving is not None:
                    self._arriving.pop(file.sha256 or "", None)
                    arriving.end()

    async def _fetch_by_xet(self, file: RemoteFile, path: Path, note_progress: Callable[[int], None]) -> bool:
        """Whether the file was fetched and verified by Xet. Not tried for a file that has begun as a plain download."""
        if file.sha256 is None or not file.url or await disk.run(kept_bytes, file, path) > 0:
            return False
        arriving = path.with_name(f"{path.name}.xet")
        try:
            fault = await fetch_by_xet(
                file,
                arriving,
                endpoint=self.settings.endpoint or host_of(file.url),
                cache=self.root / ".gpustack" / "xet",
                on_progress=note_progress,
            )
            if fault is None and await matches_announced(file, arriving):
                await disk.run(put_in_place, arriving, path)
                return True
        finally:
            with trio.CancelScope(shield=True, deadline=trio.current_time() + 5.0):
                await disk.run(lambda: arriving.unlink(missing_ok=True))
        note_progress(0)
        log.warning(
            "Not fetched by Xet but as a plain file: name=%s reason=%s", file.name, fault or "wrong hash"
        )
        return False

    async def _check_space(self, listing: Listing, target: Path, what: str) -> bool:
        """Raise NoSpace if the disk is too small for ``listing`` and the other downloads of this process.

        Returns whether anything is missing.
        """
        wanted = await disk.run(self._wanted, listing, target)
        others = sum(size for path, size in self._still_to_come.items() if path not in wanted)
        needed = sum(wanted.values())
        free = await disk.run(free_bytes, target)
        if needed and needed + others + SPARE > free:
            promised = f", {human_bytes(others)} are promised to other downloads" if others else ""
            raise NoSpace(
                f"{what} needs {human_bytes(needed)} more in {target}, where {human_bytes(free)} are free and "
                f"{human_bytes(SPARE)} are kept for logs and the database{promised}: free some space, or choose "
                "another --cache-dir",
                short=needed + others + SPARE - free,
            )
        self._still_to_come.update(
            {path: size for path, size in wanted.items() if path not in self._still_to_come}
        )
        return bool(wanted)

    def _wanted(self, listing: Listing, target: Path) -> dict[Path, int]:
        """The bytes that each missing file will still write. Blocking."""
        return {
            target / file.name: file.size - kept_bytes(file, target / file.name)
            for file in listing.files
            if not has_size(target / file.name, file.size)
        }

    def __repr__(self) -> str:
        return f"<Cache {self.root}: {len(self._here)} files arriving, {self._locks!r}>"


def _key(
    source: ModelSource,
    projector: str | None,
    extras: FileExtras = NO_EXTRAS,
    *,
    folder: Path | None = None,
) -> str:
    """The key of a listing in the index; that of an unfinished one includes the folder it is fetched to."""
    place = "" if folder is None else f" {folder}"
    more = "" if extras == NO_EXTRAS else f" {extras}"
    return hashlib.sha256(f"{source.index} {projector}{more}{place}".encode()).hexdigest()


def _local_files(listing: Listing, folder: Path) -> LocalFiles:
    paths = [str(folder / file.name) for file in listing.files if file.name != listing.mmproj]
    mmproj = None if listing.mmproj is None else str(folder / listing.mmproj)
    return LocalFiles(
        paths=(*paths, *([] if mmproj is None else [mmproj])),
        main_path=str(folder if listing.main is None else folder / listing.main),
        mmproj_path=mmproj,
        size=listing.size,
    )


def _absolute_folder(local_dir: str | None) -> Path | None:
    if not local_dir:
        return None
    folder = Path(local_dir)
    if not folder.is_absolute():
        raise Invalid(f"local_dir must be an absolute path on the worker, not {local_dir!r}")
    return folder
