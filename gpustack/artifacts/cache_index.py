"""The index of the cache on disk: the listings of sources, and which files were verified."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import re
from pathlib import Path
from typing import Any

import attrs

from gpustack import durable_file
from gpustack.artifacts.listing import Listing, RemoteFile

_LIMIT = 16 << 20
_DIGEST = re.compile(r"[0-9a-f]{64}")


@attrs.frozen
class CacheIndex:
    """JSON notes in ``folder``. All methods block.

    The notes only save work: when one is lost or damaged, the source is listed or the file is verified again.
    """

    folder: Path

    def listing(self, key: str) -> Listing | None:
        """The listing kept under ``key``, without URLs and credentials."""
        return self._listing("listings", key)

    def begun(self, key: str) -> Listing | None:
        """The listing whose download was begun under ``key`` and has not ended."""
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
        """Keep the listing of a download that begins, until ``end``; raises OSError."""
        self._keep_listing("begun", key, listing)

    def end(self, key: str) -> None:
        """Remove the note of ``begin``."""
        with contextlib.suppress(OSError):
            (self.folder / "begun" / f"{key}.json").unlink()

    def _keep_listing(self, kind: str, key: str, listing: Listing) -> None:
        note = attrs.asdict(listing)
        note["files"] = [
            {name: one[name] for name in ("name", "size", "sha256", "git_sha1")} for one in note["files"]
        ]
        self._write(kind, key, note)

    def is_verified(self, file: RemoteFile, path: Path) -> bool:
        """Whether the file at ``path`` was verified to be ``file``, and has not changed since (size and mtime)."""
        note = self._read("files", _key(path))
        return note == _verified_state(file, path)

    def remember_verified(self, file: RemoteFile, path: Path) -> None:
        """Keep that the file at ``path`` was verified to be ``file``; raises OSError."""
        self._write("files", _key(path), _verified_state(file, path))
        if file.sha256 is not None:
            self._write("contents", file.sha256, {"path": str(path), "size": file.size})

    def content(self, digest: str, root: Path) -> tuple[Path, int] | None:
        """Where the file with that SHA-256 lies, and its size in bytes.

        ``None`` unless it was verified, has not changed since, and lies below ``root``.
        """
        note = self._read("contents", digest) if _DIGEST.fullmatch(digest) else {}
        path, size = note.get("path"), note.get("size")
        if not isinstance(path, str) or not isinstance(size, int):
            return None
        place = Path(path)
        if not place.resolve().is_relative_to(root.resolve()):
            return None
        file = RemoteFile(name=place.name, size=size, sha256=digest)
        return (place, size) if self.is_verified(file, place) else None

    def forget(self, path: Path) -> None:
        """Remove the note of a file that is removed."""
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
        # Others may write the same note right now, also of another machine or container.
        draft = path.with_name(f".{path.name}.{os.urandom(8).hex()}.draft")
        durable_file.write(path, json.dumps(note), draft=draft, sync=False)


def _key(path: Path) -> str:
    return hashlib.sha256(os.fsencode(path)).hexdigest()


def _verified_state(file: RemoteFile, path: Path) -> dict[str, Any]:
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
