"""The folder with files that an engine process was promised: written before it starts, removed once it has ended."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from gpustack import durable_file
from gpustack.engines.engine import FolderView, LaunchSpec
from gpustack.errors import Unavailable

_LARGEST = 16 << 20
"""Bytes of a JSON file that is read to change it."""


def of(state_file: Path) -> Path:
    """The folder of the process that has this state file."""
    return state_file.with_suffix(".files")


def fill(folder: Path, launch: LaunchSpec) -> None:
    """Write what ``launch`` needs, and nothing else. Raises OSError, and ``Unavailable`` for JSON that cannot be read.

    Blocks.
    """
    remove(folder)
    if not launch.files and not launch.views:
        return
    folder.mkdir(mode=0o700)
    for name, content in launch.files.items():
        durable_file.write(folder / name, content, mode=0o600)
    for name, view in launch.views.items():
        _link(folder / name, view)


def remove(folder: Path) -> None:
    """Remove the folder and what is in it; links are removed, not followed. Raises OSError. Blocks."""
    try:
        shutil.rmtree(folder)
    except FileNotFoundError:
        return


def _link(folder: Path, view: FolderView) -> None:
    folder.mkdir(mode=0o700)
    for path in sorted(Path(view.source).iterdir()):
        if path.name not in view.changes:
            (folder / path.name).symlink_to(path)
    for name, changes in view.changes.items():
        known = _read(Path(view.source) / name)
        durable_file.write(folder / name, json.dumps({**known, **changes}, indent=2), mode=0o600)


def _read(path: Path) -> Mapping[str, Any]:
    """The object in a JSON file; empty if there is no file."""
    try:
        with path.open("rb") as file:
            raw = file.read(_LARGEST + 1)
        found = json.loads(raw) if len(raw) <= _LARGEST else None
    except FileNotFoundError:
        return {}
    except (ValueError, RecursionError) as error:  # a hostile file may be nested without end
        raise Unavailable(f"{path} is not JSON, so it cannot be changed for the engine: {error}") from error
    if not isinstance(found, dict):
        raise Unavailable(
            f"{path} holds no object of at most {_LARGEST} bytes, so it cannot be changed for the engine"
        )
    return found
