"""The model catalog in force: the built-in one, or the one of ``--model-catalog-file`` once it was read."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

import attrs
import trio

from gpustack.domain.catalog import ModelSet
from gpustack.errors import Invalid, Unavailable
from gpustack.nursery.limiter import ThreadLimiter, threads
from gpustack.nursery.quarantine import Quarantine
from gpustack.nursery.ticker import ticks
from gpustack.remote.http import shown
from gpustack.remote.redirect import LARGEST_DOCUMENT, fetch_document

from .catalog_file import by_source, read_catalog

log = logging.getLogger(__name__)

BUILT_IN = Path(__file__).with_name("catalog.yaml")
AGAIN_AFTER = 300.0
"""Seconds until a catalog that could not be read is tried again."""
_WITHIN = 30.0


@attrs.define(eq=False, repr=False)
class Catalog:
    """Owns the model sets. A catalog that cannot be read is named in the log, and the present one stays."""

    _source: str | None = None
    _again_after: float = AGAIN_AFTER
    _sets: tuple[ModelSet, ...] = ()
    _defaults: Mapping[str, Mapping[str, Any]] = attrs.field(factory=dict)
    _wanted: trio.Event = attrs.field(factory=trio.Event)
    _there: trio.Event = attrs.field(factory=trio.Event)
    _threads: ThreadLimiter = attrs.field(factory=lambda: threads("catalog", 1))
    _faults: Quarantine = attrs.field(factory=lambda: Quarantine("catalog"))
    origin: str = ""
    """The file, URL or ``built in`` of the present one."""
    name: str = "catalog"

    async def run(self, *, task_status: trio.TaskStatus[None]) -> None:
        task_status.started()
        if self._source is None:
            await self._wanted.wait()  # most servers are never asked for it, and reading YAML costs memory
        if not self._sets:
            self._take(await self._threads.run(lambda: read_catalog(BUILT_IN.read_bytes())), "built in")
        if self._source is not None:
            async for _ in ticks(self._again_after):
                if await self._load(self._source):
                    break
        await trio.sleep_forever()

    async def sets(self) -> tuple[ModelSet, ...]:
        """All model sets in their order. The first call waits until a catalog was read."""
        self._wanted.set()
        await self._there.wait()
        return self._sets

    async def defaults_for(self, repo: str) -> Mapping[str, Any] | None:
        """The fields of a deployment that the catalog has for a repository, or ``None``; waits as ``sets`` does."""
        await self.sets()
        return self._defaults.get(repo.casefold())

    async def _load(self, source: str) -> bool:
        with self._faults.row(source):
            return await self._take_from(source)
        return False

    async def _take_from(self, source: str) -> bool:
        try:
            raw = await self._read(source)
            found = await self._threads.run(read_catalog, raw)
        except (Invalid, Unavailable) as error:
            log.error(
                "The model catalog cannot be used, the present one stays: source=%s present=%s reason=%s",
                shown(source) if "://" in source else source,
                self.origin,
                error,
            )
            return False
        self._take(found, source)
        log.info("The model catalog has been read: source=%s model_sets=%d", self.origin, len(found))
        return True

    async def _read(self, source: str) -> bytes:
        """The bytes behind a path or URL. Raises ``Unavailable`` (``RemoteError`` is one) or ``Invalid``."""
        parts = urlsplit(source)
        if parts.scheme in ("http", "https"):
            answer = await fetch_document(source, deadline=_WITHIN)
            if answer.status != 200:
                raise Unavailable(f"{shown(source)} answered {answer.status}")
            return answer.body
        if parts.scheme and "://" in source and parts.scheme != "file":
            raise Invalid(
                f"--model-catalog-file takes a path, or a URL of file, http or https, not {parts.scheme}"
            )
        path = Path(unquote(parts.path)) if parts.scheme == "file" else Path(source)
        return await self._threads.run(_read_file, path, abandon=True)

    def _take(self, sets: tuple[ModelSet, ...], origin: str) -> None:
        self._sets, self._defaults = sets, by_source(sets)
        self.origin = shown(origin) if "://" in origin else origin
        self._there.set()

    def __repr__(self) -> str:
        return f"<Catalog: {len(self._sets)} model sets, {self.origin or 'not read yet'}>"


def _read_file(path: Path) -> bytes:
    try:
        if not path.is_file():  # reading a pipe might never end
            raise Unavailable(f"{path} is not a file")
        with path.open("rb") as file:
            raw = file.read(LARGEST_DOCUMENT + 1)
    except OSError as error:
        raise Unavailable(f"{path} cannot be read: {error.strerror}") from error
    if len(raw) > LARGEST_DOCUMENT:
        raise Invalid(f"{path} is larger than {LARGEST_DOCUMENT} bytes")
    return raw
