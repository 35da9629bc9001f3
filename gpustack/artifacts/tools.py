"""The llama.cpp programs below ``--bin-dir``: fetched, verified, tried out, and installed by replacing one link."""

from __future__ import annotations

import json
import os
import random
import shutil
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

import attrs
import trio

from gpustack.artifacts.archive import pack, unpack
from gpustack.artifacts.disk import CorruptFile, NoSpace, disk, free_bytes, is_full
from gpustack.artifacts.fetch import FetchRules, fetch
from gpustack.artifacts.file_lock import FileLocks
from gpustack.artifacts.listing import RemoteFile
from gpustack.artifacts.tool_release import PROGRAM, TAG, Platform, candidates, is_static, runtime_of
from gpustack.artifacts.tool_site import ReleaseSite, file_of, known_hashes, newest_tag
from gpustack.domain.unit import human_bytes
from gpustack.errors import Invalid, NotFound, Unavailable
from gpustack.remote.http import HttpClient

FOLDER = "llama.cpp"
"""The name below ``--bin-dir`` under which the programs are found: a symbolic link to a folder."""

_NOTE = "tools.json"
_NOTE_LIMIT = 64 << 10
_UNKNOWN = "of unknown version"
_DEPTH = 4
"""How many path components below the top of an archive the program is looked for."""


@attrs.frozen(kw_only=True)
class BuildRequest:
    """Which build is wanted. ``tag`` None means the newest; ``static`` prefers a statically linked build.

    With ``any_device`` a platform for whose device there is no build gets one for Vulkan, or for the CPU.
    """

    platform: Platform
    any_device: bool = False
    tag: str | None = None
    static: bool = False
    site: ReleaseSite = ReleaseSite()


@attrs.frozen(kw_only=True)
class Build:
    """A build: its version, the name of its archive, and the site or file that it came from."""

    tag: str
    name: str
    origin: str
    checked: bool = False
    """Whether it was verified against a hash of the site."""

    @property
    def is_static(self) -> bool:
        return is_static(self.name)


Try = Callable[[Path], Awaitable[str | None]]
"""Runs a program: why it cannot be used, or ``None``."""


async def _accept_any(program: Path) -> str | None:
    return None


@attrs.define(eq=False, repr=False)
class Tools:
    """Owner of the programs below ``root`` (``--bin-dir``). Several processes may use it at the same time."""

    root: Path
    rng: random.Random
    rules: FetchRules = FetchRules()
    _locks: FileLocks = attrs.field(init=False)

    def __attrs_post_init__(self) -> None:
        self._locks = FileLocks(self.root / ".claims")

    @property
    def program(self) -> Path:
        """The path of ``llama-server``, whether it is installed or not."""
        return program_below(self.root)

    def installed(self) -> Build | None:
        """The installed build, as its note says; ``None`` if there is none. Blocking."""
        return _read_note(self.root / FOLDER) if self.program.is_file() else None

    async def bring(
        self,
        request: BuildRequest,
        *,
        client: HttpClient,
        tell: Callable[[str], None],
        progress: Callable[[int, int], None] = lambda done, total: None,
        try_out: Try = _accept_any,
        save: Path | None = None,
        install: bool = True,
    ) -> Build:
        """Fetch the build that ``request`` describes, run ``try_out`` on it, and install it in place of the former one.

        ``tell`` gets sentences about the choice, ``progress`` the bytes done and in all. With ``save`` the build is
        also packed into that archive; without ``install`` nothing else is done with it. Cancellable at any time: the
        bytes on disk are kept for the next call, and the installed build stays. Raises Invalid, NotFound, or
        Unavailable (CorruptFile, NoSpace, RemoteError).
        """
        build, files = await find_build(request, client, tell)
        async with self._locked():
            arriving = self.root / ".arriving"
            archives = [arriving / file.name for file in files]
            total = sum(file.size for file in files)
            await disk.run(_check_space, self.root, total)
            done = 0
            for file, path in zip(files, archives, strict=True):
                before = done
                await fetch(
                    file,
                    path,
                    client=client,
                    rng=self.rng,
                    rules=self.rules,
                    on_progress=lambda here, before=before: progress(before + here, total),  # type: ignore[misc]
                )
                done += file.size
            build = await self._unpack_and_install(archives, build, try_out, save, install=install)
            await disk.run(shutil.rmtree, arriving)
        return build

    async def load(self, archive: Path, *, try_out: Try = _accept_any) -> Build:
        """Install from an archive, a saved one or one of a release. Raises as ``bring`` does."""
        if not await trio.Path(archive).is_file():
            raise Invalid(f"There is no archive {archive}")
        async with self._locked():
            unknown = Build(tag=_UNKNOWN, name=archive.name, origin=str(archive))
            return await self._unpack_and_install([archive], unknown, try_out, None, install=True)

    @asynccontextmanager
    async def _locked(self) -> AsyncIterator[None]:
        """Hold the lock on the programs, and turn OSError into NoSpace or Unavailable."""
        try:
            await disk.run(lambda: self.root.mkdir(parents=True, exist_ok=True))
            async with self._locks.hold(self.root / FOLDER):
                yield
        except OSError as error:
            if is_full(error):
                raise NoSpace(
                    f"The disk of {self.root} is full: free some space, or choose another --bin-dir"
                ) from error
            raise Unavailable(
                f"The tools cannot be kept in {self.root}: {error.strerror or error}"
            ) from error

    async def _unpack_and_install(
        self, archives: Sequence[Path], build: Build, try_out: Try, save: Path | None, *, install: bool
    ) -> Build:
        """Unpack, try out, pack and install; the scratch folder is removed in any case."""
        fresh = self.root / f"{FOLDER}-{self.rng.randrange(16**8):08x}"
        scratch = self.root / f".{fresh.name}"
        await disk.run(self._clear_scratch)
        try:
            build = await disk.run(_unpack_all, archives, scratch, build, trio.from_thread.check_cancelled)
            if install and (fault := await try_out(scratch / "ready" / PROGRAM)) is not None:
                raise Unavailable(f"{build.name} is not for this machine: {fault}")
            if save is not None:
                await disk.run(_pack, scratch / "ready", save)
            if install:
                await disk.run(self._link, scratch / "ready", fresh)
        finally:
            with trio.CancelScope(shield=True, deadline=trio.current_time() + 10.0):
                await disk.run(lambda: shutil.rmtree(scratch, ignore_errors=True))
        return build

    def _link(self, ready: Path, fresh: Path) -> None:
        """Replace the link by a rename, so that others find either the former programs or the new ones. Blocking."""
        link, draft = self.root / FOLDER, self.root / f".{FOLDER}.new"
        if link.is_dir() and not link.is_symlink():
            raise Unavailable(f"{link} was not made by GPUStack: move it away, and try again")
        before = link.readlink().name if link.is_symlink() else None
        ready.replace(fresh)
        draft.unlink(missing_ok=True)
        draft.symlink_to(fresh.name)
        draft.replace(link)
        # An engine may be starting from the former folder: that one is removed next time.
        for old in self.root.glob(f"{FOLDER}-*"):
            if old.name not in (fresh.name, before):
                shutil.rmtree(old, ignore_errors=True)

    def _clear_scratch(self) -> None:
        """Remove what a killed process left. Blocking."""
        for old in self.root.glob(f".{FOLDER}-*"):
            shutil.rmtree(old, ignore_errors=True)

    def __repr__(self) -> str:
        return f"<Tools {self.root}: {self.installed()}>"


def program_below(bin_dir: Path) -> Path:
    """The path of ``llama-server`` below ``--bin-dir``, whether it is installed or not."""
    return bin_dir / FOLDER / PROGRAM


async def find_build(
    request: BuildRequest, client: HttpClient, tell: Callable[[str], None]
) -> tuple[Build, tuple[RemoteFile, ...]]:
    """The build that ``request`` describes, and the archives to fetch. Raises NotFound, RemoteError, Invalid."""
    if request.tag is not None and not TAG.fullmatch(request.tag):
        raise Invalid(f"{request.tag[:80]!r} is not the name of a version")
    site = request.site
    tag = request.tag or await newest_tag(client, site)
    hashes = await known_hashes(client, site, tag)
    names = None if hashes is None else hashes.keys()
    for platform, static in _attempts(request):
        for name in candidates(tag, platform, static=static, names=names):
            file = await file_of(client, site, tag, name, (hashes or {}).get(name))
            if file is None:
                continue
            files = [file, *await _runtime(client, site, tag, name, hashes)]
            checked = all(one.sha256 is not None for one in files)
            if not checked:
                tell(f"{site.base} has no hashes of {name}: it is taken as it comes")
            return Build(tag=tag, name=name, origin=site.base, checked=checked), tuple(files)
        kind = "statically linked build" if static else "build"
        tell(f"There is no {kind} of llama.cpp {tag} for {platform.readable} on {site.base}")
    there = sorted(
        name for name in names or () if name.startswith(f"llama-{tag}-bin-{request.platform.system}")
    )
    more = f"; there are {', '.join(there[:12])}" if there else ""
    raise NotFound(
        f"There is no build of llama.cpp {tag} for {request.platform.readable} on {site.base}{more}"
    )


def _attempts(request: BuildRequest) -> list[tuple[Platform, bool]]:
    """Platforms to try in turn, the wanted one first, each with whether to link statically."""
    platforms = [request.platform]
    if request.any_device:
        others = [device for device in ("vulkan", "cpu") if device != request.platform.device]
        platforms += [attrs.evolve(request.platform, device=device) for device in others]
        platforms = platforms[:1] if request.platform.device == "cpu" else platforms
    links = (True, False) if request.static else (False,)
    return [(platform, static) for platform in platforms for static in links]


async def _runtime(
    client: HttpClient, site: ReleaseSite, tag: str, name: str, hashes: dict[str, str] | None
) -> list[RemoteFile]:
    """The archive of CUDA libraries, if one is published beside the build."""
    runtime = runtime_of(name)
    if runtime is None or (hashes is not None and runtime not in hashes):
        return []
    file = await file_of(client, site, tag, runtime, (hashes or {}).get(runtime))
    return [] if file is None else [file]


def _unpack_all(archives: Sequence[Path], scratch: Path, build: Build, go_on: Callable[[], None]) -> Build:
    """Unpack into ``scratch/ready``: the folder of the program in the first archive, with the files of the others."""
    folders = []
    for number, archive in enumerate(archives):
        folder = scratch / str(number)
        unpack(archive, folder, go_on=go_on)
        folders.append(folder)
    first, *others = folders
    found = min(_programs(first), key=lambda path: len(path.parts), default=None)
    if found is None:
        raise CorruptFile(f"{archives[0].name} holds no {PROGRAM}")
    if not os.access(found, os.X_OK):
        found.chmod(0o755)
    ready = scratch / "ready"
    found.parent.replace(ready)
    for folder in others:
        for path in sorted(folder.rglob("*")):
            if (path.is_symlink() or path.is_file()) and not (ready / path.name).exists():
                path.replace(ready / path.name)
    if build.tag == _UNKNOWN:
        build = _read_note(ready) or build
    (ready / _NOTE).write_text(json.dumps(attrs.asdict(build)) + "\n")
    return build


def _pack(folder: Path, archive: Path) -> None:
    try:
        pack(folder, archive, top=FOLDER)
    except OSError as error:
        raise Unavailable(f"The archive {archive} cannot be written: {error.strerror or error}") from error


def _programs(folder: Path) -> list[Path]:
    found = (path for path in folder.rglob(PROGRAM) if path.is_file() and not path.is_symlink())
    return [path for path in found if len(path.relative_to(folder).parts) <= _DEPTH]


def _read_note(folder: Path) -> Build | None:
    """The build that the note in ``folder`` describes; ``None`` if there is no valid note."""
    try:
        with (folder / _NOTE).open("rb") as file:
            told = json.loads(file.read(_NOTE_LIMIT))
        texts = {name: told[name] for name in ("tag", "name", "origin")}
        checked = told["checked"] is True
    except (OSError, ValueError, RecursionError, KeyError, TypeError):
        return None
    if not all(isinstance(text, str) and text.isprintable() for text in texts.values()):
        return None
    return Build(**texts, checked=checked)


def _check_space(root: Path, size: int) -> None:
    """Raise NoSpace unless there is space for the archive, and for what it unpacks to: about three times its size."""
    free = free_bytes(root)
    if free < 4 * size:
        raise NoSpace(
            f"The tools need {human_bytes(4 * size)} in {root}, where {human_bytes(free)} are free: free some space, "
            "or choose another --bin-dir"
        )
