"""Finds the file system that model files are fetched to among those that the worker tells of."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import attrs
import trio

from gpustack.artifacts.disk import mount_of
from gpustack.domain.worker import Filesystem, ModelDisk
from gpustack.nursery.limiter import ThreadLimiter, threads

_PATIENCE = 2.0
"""Seconds: a folder on another machine that is away never answers."""


@attrs.define(eq=False)
class ModelDiskFinder:
    """Asks again only when the file systems are others."""

    folder: Path
    evicts: bool
    _asking: ThreadLimiter = attrs.field(factory=lambda: threads("model disk", 1))
    _known: tuple[tuple[str, ...], ModelDisk | None] | None = None

    async def among(self, filesystems: Sequence[Filesystem]) -> ModelDisk | None:
        """The one of these; ``None`` if it is none of them, or that is not found out in time."""
        mounts = tuple(one.mount_point for one in filesystems)
        if self._known is not None and self._known[0] == mounts:
            return self._known[1]
        with trio.move_on_after(_PATIENCE):
            mount = await self._asking.run(mount_of, self.folder, mounts, abandon=True)
            found = None if mount is None else ModelDisk(mount_point=mount, evicts=self.evicts)
            self._known = mounts, found
            return found
        return None
