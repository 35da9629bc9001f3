"""Who this worker is, and what its data directory keeps of that: name, uuid, credential and the servers it knows."""

from __future__ import annotations

import json
import socket
import uuid
from collections.abc import Callable, Sequence
from pathlib import Path

import attrs

from gpustack import durable_file
from gpustack.config.datadir import DataDirError
from gpustack.config.secret import read_secret, write_secret
from gpustack.domain.worker import SystemReserved
from gpustack.text import printable

_NAME = "worker_name"
_UUID = "worker_uuid"
_CREDENTIAL = "worker_credential"
_SERVERS = "servers"
_SERVERS_LIMIT = 64 << 10
"""Bytes that the list of servers may have."""


@attrs.frozen
class WorkerName:
    """``explicit`` when an option gave it: then the server must not change it."""

    name: str
    explicit: bool


@attrs.frozen(kw_only=True)
class WorkerIdentity:
    """What does not change while the daemon runs. ``address`` may block: it is called in a thread."""

    name: WorkerName
    worker_uuid: str
    hostname: str
    address: Callable[[], str]
    port: int
    metrics_port: int | None
    labels: dict[str, str]
    system_reserved: SystemReserved
    version: str
    data_dir: Path
    run: str = ""
    """Tells this daemon apart from another one with the same data directory, or a copy of it."""


def worker_name(data_dir: Path, option: str | None) -> WorkerName:
    """The name from the option, else the one that was kept, else that of the host."""
    if option:
        return WorkerName(option, True)
    return WorkerName(_read(data_dir / _NAME) or host_name(), False)


def host_name() -> str:
    """What the machine is called, made printable: the kernel takes any bytes for that."""
    return printable(socket.gethostname()) or "worker"


def save_name(data_dir: Path, name: str) -> None:
    """Keep the name that the server gave, for the next start. Raises OSError."""
    if _read(data_dir / _NAME) != name:
        durable_file.write(data_dir / _NAME, f"{name}\n", mode=0o666)


def worker_uuid(data_dir: Path) -> str:
    """The uuid that was kept, else a new one, which is kept. Raises OSError.

    A worker that loses its uuid is another worker to the server.
    """
    known = _read(data_dir / _UUID)
    if known:
        return known
    made = str(uuid.uuid4())
    durable_file.write(data_dir / _UUID, f"{made}\n", mode=0o666)
    return made


def load_credential(data_dir: Path) -> str | None:
    """The credential that was kept; ``None`` where there is none that can be read: then the token is needed."""
    try:
        return read_secret(data_dir / _CREDENTIAL)
    except DataDirError:
        return None


def save_credential(data_dir: Path, credential: str) -> None:
    """Keep it, whole or not at all, readable by its owner alone. Raises OSError."""
    write_secret(data_dir / _CREDENTIAL, credential)


def load_servers(data_dir: Path) -> tuple[str, ...]:
    """Addresses of the servers of this cluster as told last; none where the file is missing or unreadable.

    For a start at which the server that the options name is gone.
    """
    try:
        with (data_dir / _SERVERS).open("rb") as file:
            found = json.loads(file.read(_SERVERS_LIMIT))
    except (OSError, ValueError, RecursionError):
        return ()
    return tuple(url for url in found if isinstance(url, str)) if isinstance(found, list) else ()


def save_servers(data_dir: Path, urls: Sequence[str]) -> None:
    """Keep them for the next start. Raises OSError."""
    durable_file.write(data_dir / _SERVERS, json.dumps(list(urls)), mode=0o666)


def _read(path: Path) -> str:
    try:
        return path.read_text("utf-8").strip()
    except (FileNotFoundError, UnicodeDecodeError):
        return ""
