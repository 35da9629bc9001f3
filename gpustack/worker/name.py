"""Who this worker is: a name and a uuid, remembered in the data directory."""

from __future__ import annotations

import socket
import uuid
from pathlib import Path

import attrs


@attrs.frozen
class WorkerName:
    """``explicit`` when an option gave it, so that it must not be changed."""

    name: str
    explicit: bool


def worker_name(data_dir: Path, option: str | None) -> WorkerName:
    """From the option, else as remembered, else the host's name."""
    if option:
        return WorkerName(option, True)
    remembered = _read(data_dir / "worker_name")
    return WorkerName(remembered or socket.gethostname(), False)


def remember_name(data_dir: Path, name: str) -> None:
    """Keep the name the server gave, for the next start."""
    if _read(data_dir / "worker_name") != name:
        (data_dir / "worker_name").write_text(f"{name}\n")


def worker_uuid(data_dir: Path) -> str:
    """As remembered, else made now and remembered."""
    path = data_dir / "worker_uuid"
    known = _read(path)
    if known:
        return known
    made = str(uuid.uuid4())
    path.write_text(f"{made}\n")
    return made


def _read(path: Path) -> str:
    try:
        return path.read_text().strip()
    except FileNotFoundError:
        return ""
