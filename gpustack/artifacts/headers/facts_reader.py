"""Reads the facts about a model from the first megabytes of its files, on this machine or at a hub."""

from __future__ import annotations

import random
from collections.abc import Callable
from pathlib import Path

import attrs
import trio

from gpustack.artifacts.disk import disk
from gpustack.artifacts.headers.gguf import (
    FIRST_READ,
    GgufHeader,
    HeaderError,
    TruncatedHeader,
    next_read,
    parse,
    read_header,
)
from gpustack.artifacts.headers.gguf_facts import gguf_facts
from gpustack.artifacts.listing import Listing, RemoteFile, model_of
from gpustack.artifacts.range_request import (
    SourceChanged,
    TransientError,
    final_error,
    first_byte,
    open_range,
)
from gpustack.artifacts.repository import FileExtras
from gpustack.artifacts.source import (
    DEFAULT_LIBRARY,
    DEFAULT_PROJECTOR,
    ModelScopeAccess,
    SourceSettings,
    source_for,
)
from gpustack.domain.artifact import ModelSource
from gpustack.domain.facts import FileFormat, ModelFacts
from gpustack.errors import BadRequest, NotFound, Unavailable
from gpustack.remote.http import (
    HttpClient,
    RemoteConnectionError,
    RemoteTimeout,
    Timeouts,
    open_client,
    shown,
)

_TRIES = 4
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
        projector = None if listing.mmproj is None else listing.file(listing.mmproj).size
        weights = [file for file in listing.files if file.name != listing.mmproj]
        size = sum(file.size for file in weights)
        if listing.main is None or not listing.main.lower().endswith(".gguf"):
            if local:
                await disk.run(_refuse_pointer, listing)
            return _folder_facts(listing, size)
        parts = [file for file in weights if model_of(file.name) == model_of(listing.main)]
        with trio.move_on_after(self.deadline):
            try:
                if local:
                    folder = Path(listing.folder)
                    headers = [await disk.run(read_header, folder / one.name, abandon=True) for one in parts]
                else:
                    async with open_client(timeouts=Timeouts(stall=20.0)) as client:
                        headers = [await self._fetch_header(client, one) for one in parts]
                for file, header in zip(parts, headers, strict=True):
                    _check_whole(file, header)
                return gguf_facts(headers, file_size=size, projector_size=projector)
            except HeaderError as error:
                raise BadRequest(f"The header of {what} cannot be read: {error}") from error
            except OSError as error:
                raise NotFound(f"{what} cannot be read: {error.strerror}") from error
        raise Unavailable(f"The header of {what} could not be read within {self.deadline:g} s")

    async def _fetch_header(self, client: HttpClient, file: RemoteFile) -> GgufHeader:
        data = b""
        wanted = FIRST_READ
        while True:
            data += await self._fetch_bytes(client, file, len(data), min(wanted, file.size))
            try:
                # Hostile bytes take seconds to parse, so it is done in a thread, which a cancellation abandons.
                return await disk.run(parse, data, abandon=True)
            except TruncatedHeader as cut:
                if len(data) >= file.size:
                    raise
                wanted = next_read(len(data), cut.needed)

    async def _fetch_bytes(self, client: HttpClient, file: RemoteFile, start: int, end: int) -> bytes:
        """The bytes of ``file`` from ``start`` up to ``end``, with retries."""
        if start == end:
            return b""
        for attempt in range(_TRIES):
            try:
                async with open_range(client, file, start, end) as incoming:
                    skip = start - first_byte(incoming, file, start, end)
                    data = bytearray()
                    async for part in incoming.pieces():
                        kept = part[skip:] if skip else part
                        skip = max(skip - len(part), 0)
                        data += kept[: end - start - len(data)]
                        if len(data) == end - start:
                            return bytes(data)
                raise Unavailable(f"{shown(file.url)} sent less than announced")
            except SourceChanged as error:
                raise Unavailable(f"{file.name} has changed on {shown(file.url)}: try again") from error
            except (RemoteConnectionError, RemoteTimeout, TransientError) as error:
                if attempt == _TRIES - 1:
                    raise final_error(error) from error
                told = error.wait if isinstance(error, TransientError) else None
                await trio.sleep(
                    min(told, 10.0) if told is not None else self.rng.uniform(0.2, 0.5) * 2**attempt
                )
        raise AssertionError("unreachable")

    def __repr__(self) -> str:
        return f"<FactsReader: {len(self._known)} sources known>"


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


def _folder_facts(listing: Listing, size: int) -> ModelFacts:
    """The facts of a folder in another format than GGUF: only the size of the weights is known."""
    weights = [file.size for file in listing.files if file.name.endswith(".safetensors")]
    return ModelFacts(
        format=FileFormat.SAFETENSORS if weights else FileFormat.UNKNOWN,
        weights=sum(weights) or None,
        file_size=size,
        split_count=max(len(weights), 1),
    )


def _local_state(listing: Listing) -> object:
    """Names, sizes and modification times of a local model, which change when it is replaced. Blocking."""
    folder = Path(listing.folder)
    try:
        return tuple((one.name, one.size, (folder / one.name).stat().st_mtime_ns) for one in listing.files)
    except OSError:
        return None
