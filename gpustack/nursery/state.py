"""State files: what a daemon stores about a process group, so that the next daemon can adopt it."""

from __future__ import annotations

import contextlib
import json
import os
import stat
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import attrs

from gpustack import durable_file

_LIMIT = 256 * 1024


@attrs.frozen(kw_only=True)
class GroupState:
    """A process group: the identity of its leader, and what it was started for.

    ``pid`` alone may be reused; with ``boot_id`` and ``start_ticks`` it is unique. They are None where the system
    cannot tell, and such a group is never adopted. ``path`` is the file it was read from.
    """

    pid: int
    boot_id: str | None
    start_ticks: int | None
    started_at: datetime
    port: int | None = None
    generation: int = 0
    meta: Mapping[str, str] = attrs.field(factory=dict)
    secrets: Mapping[str, str] = attrs.field(factory=dict, repr=False)
    """Secrets that the group was given. They are in the file, which only its owner can read, and nowhere else."""
    path: Path | None = attrs.field(default=None, eq=False)


@attrs.frozen
class UnreadableState:
    """A state file that cannot be used, and why."""

    path: Path
    reason: str


def write_state(path: Path, state: GroupState) -> None:
    """Write ``state`` to ``path`` as a whole, mode 0600, on disk before this returns. Blocks; raises OSError,
    ValueError.

    The file names the inode of its folder, so that a copy of the folder is not taken for the state of processes.
    """
    text = json.dumps({**_to_document(state), "folder": _name_of(path.parent)}, indent=1).encode()
    if len(text) > _LIMIT:
        raise ValueError(f"the state for {path.name} is too large to be read back")
    durable_file.write(path, text)


def forget_state(path: Path) -> None:
    """Remove the file, if it is there."""
    path.unlink(missing_ok=True)
    with contextlib.suppress(FileNotFoundError):
        durable_file.sync_folder(path.parent)


def read_states(folder: Path) -> list[GroupState | UnreadableState]:
    """All states in ``folder`` (``*.json``), sorted by name. A missing folder counts as empty."""
    return [read_state(path) for path in sorted(folder.glob("*.json"))]


def read_state(path: Path) -> GroupState | UnreadableState:
    """The state at ``path``, or why it cannot be used."""
    try:
        document = json.loads(_read_bounded(path))
        state = _from_document(document, path)
        if _one(document, "folder", str) not in (None, _name_of(path.parent)):
            raise ValueError("copied from another data directory, whose daemon looks after the process")
        return state
    except OSError as error:
        return UnreadableState(path, error.strerror or str(error))
    except RecursionError:
        return UnreadableState(path, "too deeply nested")
    except ValueError as error:  # not UTF-8, not JSON, or not of our form
        return UnreadableState(path, str(error))


def _read_bounded(path: Path) -> bytes:
    # The content decides which processes are signalled: no link, no pipe, nothing endless is read.
    fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
    with os.fdopen(fd, "rb") as file:
        if not stat.S_ISREG(os.fstat(fd).st_mode):
            raise ValueError("not a plain file")
        text = file.read(_LIMIT + 1)
    if len(text) > _LIMIT:
        raise ValueError(f"longer than {_LIMIT} bytes")
    return text


def _to_document(state: GroupState) -> dict[str, Any]:
    return {
        "pid": state.pid,
        "boot_id": state.boot_id,
        "start_ticks": state.start_ticks,
        "started_at": state.started_at.astimezone(UTC).isoformat(),
        "port": state.port,
        "generation": state.generation,
        "meta": dict(state.meta),
        "secrets": dict(state.secrets),
    }


def _from_document(document: object, path: Path) -> GroupState:
    if not isinstance(document, dict):
        raise ValueError("not an object")
    pid = _one(document, "pid", int)
    if pid is None or not 1 < pid < 2**31:  # 0 and 1 would signal ourselves or everyone
        raise ValueError("pid is not that of an ordinary process")
    meta, secrets = _texts(document, "meta"), _texts(document, "secrets")
    started_at = datetime.fromisoformat(_one(document, "started_at", str) or "")
    if started_at.tzinfo is None:
        raise ValueError("started_at has no time zone")
    return GroupState(
        pid=pid,
        boot_id=_one(document, "boot_id", str),
        start_ticks=_one(document, "start_ticks", int),
        started_at=started_at.astimezone(UTC),
        port=_one(document, "port", int),
        generation=_one(document, "generation", int) or 0,
        meta=meta,
        secrets=secrets,
        path=path,
    )


def _name_of(folder: Path) -> str:
    """Identifies a folder: stays when it is renamed, differs in a copy."""
    found = folder.stat()
    return f"{found.st_dev}:{found.st_ino}"


def _texts(document: dict[str, Any], key: str) -> dict[str, str]:
    found: dict[str, str] = _one(document, key, dict) or {}
    if not all(isinstance(value, str) for value in found.values()):
        raise ValueError(f"{key} holds something other than text")
    return found


def _one(document: dict[str, Any], key: str, kind: type[Any]) -> Any:
    value = document.get(key)
    if value is not None and (not isinstance(value, kind) or isinstance(value, bool)):
        raise ValueError(f"{key} is of the wrong kind")
    return value
