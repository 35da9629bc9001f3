"""The servers this worker was told of, kept for a start at which the one that was named is gone."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

from gpustack import durable_file

_FILE = "servers"
_LIMIT = 64 << 10


def known_servers(data_dir: Path) -> tuple[str, ...]:
    """Their addresses; none where the file is missing or unreadable."""
    try:
        with (data_dir / _FILE).open("rb") as file:
            found = json.loads(file.read(_LIMIT))
    except (OSError, ValueError, RecursionError):
        return ()
    return tuple(url for url in found if isinstance(url, str)) if isinstance(found, list) else ()


def remember_servers(data_dir: Path, urls: Sequence[str]) -> None:
    """Keep them for the next start. Raises OSError."""
    durable_file.write(data_dir / _FILE, json.dumps(list(urls)))
