"""Who this worker is: a name and a uuid, remembered in the data directory."""

from __future__ import annotations

import socket
import uuid
from pathlib import Path

import attrs

from gpustack import durable_file
from gpustack.text import printable


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
    return WorkerName(remembered or host_name(), False)


def host_name() -> str:
    """What the machine is called; the kernel takes any bytes for that."""
    return printable(socket.gethostname()) or "worker"


def remember_name(data_dir: Path, name: str) -> None:
    """Keep the name the server gave, for the next start. Raises OSError."""
    if _read(data_dir / "worker_name") != name:
        durable_file.write(data_dir / "worker_name", f"{name}\n")


def worker_uuid(data_dir: Path) -> str:
    """As remembered, else made now and remembered. Raises OSError."""
    path = data_dir / "worker_uuid"
    known = _read(path)
    if known:
        return known
    made = str(uuid.uuid4())
    durable_file.write(path, f"{made}\n")
    return made


def _read(path: Path) -> str:
    try:
        return path.read_text("utf-8").strip()
    except (FileNotFoundError, UnicodeDecodeError):
        return ""
