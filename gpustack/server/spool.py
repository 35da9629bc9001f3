"""What a daemon that stops could not bring to the store, in a folder, for the next one to bring there."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TypeVar

from gpustack import durable_file
from gpustack.domain.document import decode, encode
from gpustack.errors import Invalid

log = logging.getLogger(__name__)

T = TypeVar("T")


def leave(folder: Path, values: Sequence[object]) -> None:
    """Put the values into a file of the folder, on disk before this returns. Raises OSError."""
    folder.mkdir(mode=0o700, exist_ok=True)
    durable_file.write(folder / f"{os.getpid()}.json", encode(list(values)))
    log.info(
        "Left for the next daemon what the database did not take: folder=%s count=%d", folder, len(values)
    )


def take(folder: Path, cls: type[T]) -> Iterator[T]:
    """All values of that class that were left.

    A file is set aside before it is read: of a daemon killed in between its values are lost, but never taken twice.
    One that cannot be read stays there under another name.
    """
    for path in sorted(folder.glob("*.json")):
        taken = path.with_suffix(".taken")
        try:
            path.rename(taken)
            values = decode(taken.read_bytes(), tuple[cls, ...])  # type: ignore[valid-type]
            taken.unlink()
        except (OSError, Invalid) as error:
            log.warning("What another daemon left cannot be read: file=%s reason=%s", path, error)
            continue
        yield from values
