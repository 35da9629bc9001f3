"""What the cache remembers on disk: what a source had, and which files were once found right."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import threading
from pathlib import Path
from typing import Any

import attrs

from gpustack import durable_file
from gpustack.artifacts.listing import Listing, RemoteFile

_LIMIT = 16 << 20


@attrs.frozen
class CacheIndex:
    """Small notes in ``folder``. They only save work: losing or spoiling one costs a look at the source or the file."""

    folder: Path

    def listing(self, key: str) -> Listing | None:
        """What was remembered under ``key``; addresses and credentials are not."""
        return self._listing("listings", key)

    def begun(self, key: str) -> Listing | None:
        """What is being fetched, or was when it was stopped, under ``key``."""
        return self._listing("begun", key)

    def _listing(self, kind: str, key: str) -> Listing | None:
        note = self._read(kind, key)
        try:
            files = tuple(
                RemoteFile(
                    name=str(one["name"]),
                    size=int(one["size"]),
                    sha256=one["sha256"],
                    git_sha1=one["git_sha1"],
                )
                for one in note["files"]
            )
            return Listing(
                folder=str(note["folder"]),
                files=files,
                main=note["main"],
                mmproj=note["mmproj"],
                revision=note["revision"],
            )
        except (KeyError, TypeError, ValueError):
            return None

    def remember_listing(self, key: str, listing: Listing) -> None:
        """Keep ``listing``; raises OSError."""
        self._keep_listing("listings", key, listing)

    def begin(self, key: str, listing: Listing) -> None:
        """Keep what is about to be fetched until ``end``; raises OSError."""
        self._keep_listing("begun", key, listing)

    def end(self, key: str) -> None:
        """Nothing is unfinished under ``key`` any more."""
        with contextlib.suppress(OSError):
            (self.folder / "begun" / f"{key}.json").unlink()

    def _keep_listing(self, kind: str, key: str, listing: Listing) -> None:
        note = attrs.asdict(listing)
        note["files"] = [
            {name: one[name] for name in ("name", "size", "sha256", "git_sha1")} for one in note["files"]
        ]
        self._write(kind, key, note)

    def is_known_right(self, file: RemoteFile, path: Path) -> bool:
        """The file at ``path`` was found to be ``file`` before, and nobody has touched it since."""
        note = self._read("files", _key(path))
        return note == _state(file, path)

    def remember_right(self, file: RemoteFile, path: Path) -> None:
        """Keep that the file at ``path`` is ``file``; raises OSError."""
        self._write("files", _key(path), _state(file, path))

    def forget(self, path: Path) -> None:
        """The file at ``path`` goes."""
        with contextlib.suppress(OSError):
            (self.folder / "files" / f"{_key(path)}.json").unlink()

    def _read(self, kind: str, key: str) -> dict[str, Any]:
        try:
            with (self.folder / kind / f"{key}.json").open("rb") as source:
                note = json.loads(source.read(_LIMIT))
        except (OSError, ValueError, RecursionError):
            return {}
        return note if isinstance(note, dict) else {}

    def _write(self, kind: str, key: str, note: dict[str, Any]) -> None:
        path = self.folder / kind / f"{key}.json"
        path.parent.mkdir(parents=True, exist_ok=True)
        # Others may write the same note right now.
        draft = path.with_name(f".{path.name}.{os.getpid()}-{threading.get_ident()}.draft")
        durable_file.write(path, json.dumps(note), draft=draft)


def _key(path: Path) -> str:
    return hashlib.sha256(os.fsencode(path)).hexdigest()


def _state(file: RemoteFile, path: Path) -> dict[str, Any]:
    try:
        seen = path.stat()
    except OSError:
        return {"absent": True}
    return {
        "size": seen.st_size,
        "modified": seen.st_mtime_ns,
        "sha256": file.sha256,
        "git_sha1": file.git_sha1,
        "announced": file.size,
    }
