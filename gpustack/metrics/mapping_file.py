"""The mapping of engines' metrics in use: the default, or the one in ``custom_metrics_config.yaml``."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import attrs

from gpustack import durable_file
from gpustack.domain.document import read_yaml
from gpustack.errors import Invalid, Unavailable
from gpustack.nursery.limiter import ThreadLimiter, threads

from .mapping import MetricMap, default_map, read_map

log = logging.getLogger(__name__)

FILE = "custom_metrics_config.yaml"
_LARGEST = 2 << 20


@attrs.define(eq=False, repr=False)
class MetricMapFile:
    """Owner of the file. If it cannot be read, that is logged and the default is used."""

    _path: Path
    _threads: ThreadLimiter = attrs.field(factory=lambda: threads("metrics configuration", 1))

    @classmethod
    def within(cls, data_dir: Path) -> MetricMapFile:
        """The file in a data directory."""
        return cls(data_dir / FILE)

    async def current(self) -> MetricMap:
        """The mapping as the file is now; an edit by hand counts from the next call."""
        return await self._threads.run(self._read)

    async def replace(self, document: Any) -> None:
        """Write a new mapping atomically; an empty object restores the default.

        Raises Invalid with every fault, Unavailable when the file cannot be written.
        """
        wanted = read_map(document)
        await self._threads.run(self._write, wanted if document else None)

    def _read(self) -> MetricMap:
        try:
            with self._path.open("rb") as file:
                text = file.read(_LARGEST + 1)
            if len(text) > _LARGEST:
                raise Invalid(f"it is larger than {_LARGEST} bytes")
            return read_map(read_yaml(text))
        except FileNotFoundError:
            return default_map()
        except (OSError, Invalid) as error:
            log.error("The mapping of metrics cannot be used: file=%s reason=%s", self._path, error)
            return default_map()

    def _write(self, wanted: MetricMap | None) -> None:
        import yaml

        try:
            if wanted is None:
                self._path.unlink(missing_ok=True)
                return
            text = yaml.safe_dump(wanted.document(), sort_keys=False, allow_unicode=True)
            durable_file.write(self._path, text)
        except OSError as error:
            raise Unavailable(f"{self._path} cannot be written: {error.strerror or error}") from error

    def __repr__(self) -> str:
        return f"<MetricMapFile in {self._path.name}>"
