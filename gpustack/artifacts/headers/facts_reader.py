"""Reads the facts about a model from the first megabytes of its files, on this machine or at a hub."""

from __future__ import annotations

import random
from collections.abc import Callable
from pathlib import Path

import attrs
import trio

from gpustack.artifacts.disk import disk
from gpustack.artifacts.headers.folder_reader import read_folder
from gpustack.artifacts.headers.gguf import (
    FIRST_READ,
    GgufHeader,
    HeaderError,
    TruncatedHeader,
    next_read,
    parse,
)
from gpustack.artifacts.headers.gguf_facts import gguf_facts
from gpustack.artifacts.headers.part_reader import LocalParts, PartReader, RemoteParts
from gpustack.artifacts.listing import Listing, RemoteFile, model_of
from gpustack.artifacts.repository import FileExtras
from gpustack.artifacts.source import (
    DEFAULT_LIBRARY,
    DEFAULT_PROJECTOR,
    ModelScopeAccess,
    SourceSettings,
    source_for,
)
from gpustack.domain.artifact import ModelSource
from gpustack.domain.facts import ModelFacts
from gpustack.errors import BadRequest, NotFound, Unavailable
from gpustack.remote.http import Timeouts, open_client

_WEIGHTS = (".safetensors", ".bin", ".pt", ".pth")


@attrs.frozen(kw_only=True)
class _CachedFacts:
    """Facts, the state of the source that they were read from, and until when they need no new look."""

    facts: ModelFacts
    state: object
    until: float


@attrs.define(eq=False, repr=False, kw_only=True)
class FactsReader:
    """Reads facts, and keeps those of the last ``most`` sources.

    For ``fresh_for`` seconds of ``clock`` they are returned without asking the source. After that the source is listed
    again, and headers are read again only if its state has changed. ``deadline`` is in seconds.
    """

    clock: Callable[[], float]
    rng: random.Random
    endpoint: str | None = None
    library: str = DEFAULT_LIBRARY
    model_scope: ModelScopeAccess = ModelScopeAccess()
    fresh_for: float = 600.0
    deadline: float = 60.0
    most: int = 256
    _known: dict[tuple[str, str | None], _CachedFacts] = attrs.field(factory=dict)

    async def read(
        self, source: ModelSource, *, token: str | None = None, projector: str | None = DEFAULT_PROJECTOR
    ) -> ModelFacts:
        """The facts of ``source``. Listing it and reading headers may take ``deadline`` seconds each.

        Cancellable at any time. Raises BadRequest when a file is damaged or of another kind, NotFound (also for a local
        path that is not on this machine), Unavailable, and what listing a source raises.
        """
        place = source_for(source.kind)
        key = (source.index, projector)
        known = self._known.get(key)
        now = self.clock()
        if known is not None and now < known.until and not place.is_local:
            return known.facts
        settings = SourceSettings(
            endpoint=self.endpoint,
            library=self.library,
            token=token,
            model_scope=self.model_scope,
            deadline=self.deadline,
            projector=projector,
            # Whether pickles are wanted is for the worker that would fetch them: headers run no code.
            extras=FileExtras(code=True),
        )
        listing = await place.resolve(source, settings)
        state = await disk.run(_local_state, listing) if place.is_local else listing.revision
        if known is None or known.state != state or state is None:
            facts = await self._facts(listing, source.readable, local=place.is_local)
        else:
            facts = known.facts
        self._known.pop(key, None)
        self._known[key] = _CachedFacts(facts=facts, state=state, until=now + self.fresh_for)
        while len(self._known) > self.most:
            del self._known[next(iter(self._known))]
        return facts

    async def _facts(self, listing: Listing, what: str, *, local: bool) -> ModelFacts:
        with trio.move_on_after(self.deadline):
            try:
                if local:
                    await disk.run(_refuse_pointer, listing)
                    return await _read_facts(listing, LocalParts(Path(listing.folder)))
                async with open_client(timeouts=Timeouts(stall=20.0)) as client:
                    return await _read_facts(listing, RemoteParts(client, self.rng))
            except HeaderError as error:
                raise BadRequest(f"The header of {what} cannot be read: {error}") from error
            except OSError as error:
                raise NotFound(f"{what} cannot be read: {error.strerror}") from error
        raise Unavailable(f"The header of {what} could not be read within {self.deadline:g} s")

    def __repr__(self) -> str:
        return f"<FactsReader: {len(self._known)} sources known>"


async def _read_facts(listing: Listing, parts: PartReader) -> ModelFacts:
    if listing.main is None or not listing.main.lower().endswith(".gguf"):
        return await read_folder(listing, parts)
    weights = [file for file in listing.files if file.name != listing.mmproj]
    shards = [file for file in weights if model_of(file.name) == model_of(listing.main)]
    headers = [await _read_header(parts, file) for file in shards]
    for file, header in zip(shards, headers, strict=True):
        _check_whole(file, header)
    projector = None if listing.mmproj is None else listing.file(listing.mmproj).size
    return gguf_facts(headers, file_size=sum(file.size for file in weights), projector_size=projector)


async def _read_header(parts: PartReader, file: RemoteFile) -> GgufHeader:
    data = b""
    wanted = FIRST_READ
    while True:
        data += await parts.read(file, len(data), min(wanted, file.size))
        try:
            # Hostile bytes take seconds to parse, so it is done in a thread, which a cancellation abandons.
            return await disk.run(parse, data, abandon=True)
        except TruncatedHeader as cut:
            if len(data) >= file.size:
                raise
            wanted = next_read(len(data), cut.needed)


def _check_whole(file: RemoteFile, header: GgufHeader) -> None:
    """Raise BadRequest for a file without its end: an engine would refuse it only after its start."""
    if file.size < header.least_file_size:
        raise BadRequest(
            f"{file.name} is cut short: it has {file.size} bytes of at least {header.least_file_size}; copy or "
            "download it again"
        )


def _refuse_pointer(listing: Listing) -> None:
    """Raise BadRequest for a clone made without Git LFS: it has small text files in place of the weights. Blocking."""
    for file in listing.files:
        if file.name.endswith(_WEIGHTS) and file.size < 1024:
            path = Path(listing.folder) / file.name
            try:
                is_pointer = path.read_bytes().startswith(b"version https://git-lfs")
            except OSError:
                continue
            if is_pointer:
                raise BadRequest(
                    f"{path} is a Git LFS pointer in place of the file: run 'git lfs pull' where it was cloned"
                )


def _local_state(listing: Listing) -> object:
    """Names, sizes and modification times of a local model, which change when it is replaced. Blocking."""
    folder = Path(listing.folder)
    try:
        return tuple((one.name, one.size, (folder / one.name).stat().st_mtime_ns) for one in listing.files)
    except OSError:
        return None
