"""The format of a backup: a compressed tar whose first member lists the others with their checksums.

backup.json    what wrote it, when, and the SHA-256 of each file that follows
database.db    every record as an SQLite database, whatever kind of database they came from
token, jwt_secret_key, …    the secrets of the data directory: without them API keys and sessions are void
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import sqlite3
import tarfile
import zlib
from collections.abc import Mapping
from contextlib import closing
from datetime import datetime
from pathlib import Path
from typing import IO, Any

import attrs

from gpustack import durable_file
from gpustack.errors import GpustackError, Invalid

FORMAT = 1
MANIFEST, DATABASE = "backup.json", "database.db"
SECRETS = ("token", "jwt_secret_key", "initial_admin_password")

_CHUNK = 1 << 20
_MANIFEST_LIMIT = 1 << 20
_SECRET_LIMIT = 1 << 16
_SLACK = 64 << 20
"""Bytes of free disk space that unpacking does not use."""


class BackupError(GpustackError):
    """A backup cannot be written, or is damaged or incomplete."""


@attrs.frozen(kw_only=True)
class Manifest:
    """The contents of a backup: what is written as ``backup.json``."""

    version: str
    schema: str
    made_at: datetime
    source: str
    revision: int
    rows: Mapping[str, int]
    files: Mapping[str, str]
    """The SHA-256 of each file, by its name."""

    def to_json(self) -> str:
        fields = {**attrs.asdict(self), "made_at": self.made_at.isoformat(), "format": FORMAT}
        return json.dumps(fields, indent=2, sort_keys=True) + "\n"

    @classmethod
    def of(cls, text: str) -> Manifest:
        """Read ``backup.json``. Raises ``Invalid`` when it is damaged or of another format."""
        try:
            fields: dict[str, Any] = json.loads(text)
            found = fields.pop("format")
            if found == FORMAT:
                fields["files"] = {str(name): str(sealed) for name, sealed in fields["files"].items()}
                return cls(**{**fields, "made_at": datetime.fromisoformat(fields["made_at"])})
        except (ValueError, TypeError, KeyError, AttributeError) as error:
            raise Invalid(f"{MANIFEST} in the backup cannot be read ({error}): it is damaged") from error
        raise Invalid(
            f"The backup has format {found}, this gpustack reads {FORMAT}: use the one that wrote it"
        )


def settle_database(path: Path) -> None:
    """Bring the write-ahead log of a closed database into its file; raises BackupError when it is damaged. Blocks."""
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("PRAGMA journal_mode=DELETE")
    check_database(path)


def check_database(path: Path) -> None:
    """Raise BackupError when the file is damaged, or no database. Blocks for as long as reading it takes."""
    try:
        with closing(sqlite3.connect(f"{path.as_uri()}?mode=ro", uri=True)) as connection:
            said = str(connection.execute("PRAGMA integrity_check").fetchone()[0])
    except sqlite3.Error as error:
        said = str(error)
    if said != "ok":
        raise BackupError(f"The database of the backup is damaged: {said}")


def digest(path: Path) -> str:
    """The SHA-256 of a file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def pack(folder: Path, manifest: Manifest, target: Path) -> None:
    """Write the files of ``manifest`` in ``folder`` to ``target`` in one step, synced, readable by its owner alone.

    Raises BackupError, also when the target is there already.
    """
    try:
        with durable_file.replacing(target, overwrite=False) as file:
            (folder / MANIFEST).write_text(manifest.to_json())
            with tarfile.open(fileobj=file, mode="w:gz", format=tarfile.PAX_FORMAT) as tar:
                for name in (MANIFEST, *sorted(manifest.files)):
                    tar.add(folder / name, name, filter=_anonymous)
    except FileExistsError as error:
        raise BackupError(f"{target} is there already: name another file") from error
    except OSError as error:
        raise BackupError(f"The backup cannot be written to {target}: {error.strerror or error}") from error


def _anonymous(member: tarfile.TarInfo) -> tarfile.TarInfo:
    member.uid = member.gid = 0
    member.uname = member.gname = ""
    member.mode = 0o600
    return member


def unpack(source: Path, folder: Path) -> Manifest:
    """Unpack a backup into ``folder`` and return its manifest; raises BackupError or Invalid if it is damaged.

    Only files that belong to a backup are written, and none that is larger than the disk has room for.
    """
    try:
        with tarfile.open(source, "r:gz") as tar:
            first = tar.next()
            if first is None or first.name != MANIFEST:
                raise Invalid(f"{source} is no backup of gpustack")
            manifest = Manifest.of(_member(tar, first, _MANIFEST_LIMIT).read(_MANIFEST_LIMIT).decode())
            if set(manifest.files) - {DATABASE, *SECRETS} or DATABASE not in manifest.files:
                raise Invalid(f"{source} lists files that no backup has: it is damaged")
            for name, sealed in sorted(manifest.files.items()):
                member = tar.next()
                if member is None or member.name != name:
                    raise BackupError(f"{source} is not whole: {name} is missing")
                room = shutil.disk_usage(folder).free - _SLACK if name == DATABASE else _SECRET_LIMIT
                path = folder / name
                _write(_member(tar, member, room), path)
                if digest(path) != sealed:
                    raise BackupError(f"{source} is damaged: {name} is not what was written")
    except (tarfile.TarError, zlib.error, EOFError, UnicodeDecodeError) as error:
        raise BackupError(f"{source} is no backup, or not whole: {error}") from error
    except OSError as error:
        raise BackupError(f"{source} cannot be unpacked: {error.strerror or error}") from error
    return manifest


def _member(tar: tarfile.TarFile, member: tarfile.TarInfo, limit: int) -> IO[bytes]:
    file = tar.extractfile(member) if member.isfile() else None
    if file is None:
        raise BackupError(f"{member.name} in the backup is no file")
    if member.size > limit:
        raise BackupError(
            f"{member.name} in the backup has {member.size} bytes, and there is room for {limit}"
        )
    return file


def _write(file: IO[bytes], path: Path) -> None:
    fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    with os.fdopen(fd, "wb") as out:
        shutil.copyfileobj(file, out, _CHUNK)
