"""Whether the data directory can be written, and whether there is room for models."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

from gpustack.cli.check import CheckContext, Finding, failed, good, note
from gpustack.config.datadir import SECRETS, exposures
from gpustack.config.permission import readable_by_others
from gpustack.config.secret import LIMIT, SHORTEST
from gpustack.domain.unit import GIB, human_bytes

_LITTLE, _TOO_LITTLE = 10 * GIB, 1 * GIB


async def look(context: CheckContext) -> list[Finding]:
    if context.options is None:
        return []
    data, cache = context.options.data_dir, context.options.cache_dir
    return [_writable(data), *_private(data), _room(cache)]


def _existing(path: Path) -> Path:
    """The path itself, or the nearest folder above it that exists."""
    while not path.exists() and path != path.parent:
        path = path.parent
    return path


def _writable(data: Path) -> Finding:
    above = _existing(data)
    if not above.is_dir():
        return failed(f"{above} is not a folder", "Choose another data directory with --data-dir.")
    if not os.access(above, os.W_OK | os.X_OK):
        fix = "Give this user the right to it (chown), or choose another data directory with --data-dir."
        return failed(f"{above} cannot be written by this user", fix)
    return good(
        f"data goes to {data}" if above == data else f"data will go to {data}, which is not there yet"
    )


def _private(data: Path) -> list[Finding]:
    """Whether other users can read the secrets in the data directory, or change which programs run."""
    ways = [
        *exposures(data),
        *(way for name in SECRETS if (way := readable_by_others(data / name)) is not None),
    ]
    return [failed(way.sentence, way.fix) for way in ways] + _short(data / "token")


def _short(token: Path) -> list[Finding]:
    try:
        with token.open(encoding="utf-8") as file:
            length = len(file.read(LIMIT).strip())
    except (OSError, UnicodeDecodeError):  # none, or another user's: then it is not ours to judge
        return []
    if not 0 < length < SHORTEST["token"]:
        return []
    fix = "Remove the file, restart, and give the new one to workers that join."
    return [note(f"the cluster token in {token} has fewer than {SHORTEST['token']} characters", fix)]


def _room(cache: Path) -> Finding:
    free = shutil.disk_usage(_existing(cache)).free
    said = f"{human_bytes(free)} are free for models in {cache}"
    fix = "Free some, or put models elsewhere with --cache-dir."
    if free < _TOO_LITTLE:
        return failed(said, fix)
    return note(f"{said}, which few models fit into", fix) if free < _LITTLE else good(said)
