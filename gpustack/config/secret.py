"""The secrets that a daemon generates, each in a file with mode 0600."""

from __future__ import annotations

import os
import random
import string
from collections.abc import Callable, Mapping
from pathlib import Path

from gpustack import durable_file
from gpustack.config.datadir import DataDirError

SHORTEST = {"token": 16, "bootstrap_password": 8}
"""The least number of characters of a new secret that a person chooses, by the name of its option."""
LIMIT = 64 * 1024
"""The largest secret file, in bytes."""

SYMBOLS = "!@#$%^&*_+"
_CLASSES = (string.ascii_lowercase, string.ascii_uppercase, string.digits, SYMBOLS)

BYTES = {"token": 16, "jwt_secret_key": 32}
"""The length of the generated secrets of a cluster, in bytes (two hexadecimal digits each), by file name."""


def too_short(options: Mapping[str, str | None]) -> tuple[str, ...]:
    """The names of those options that are set, and shorter than a new secret may be."""
    return tuple(name for name, least in SHORTEST.items() if 0 < len(options.get(name) or "") < least)


def keep_token(data_dir: Path, token_hex: Callable[[int], str]) -> str:
    """The cluster token in ``<data-dir>/token``; generated with ``token_hex`` (``secrets.token_hex``) if absent."""
    return ensure_secret(data_dir / "token", lambda: token_hex(BYTES["token"]))


def keep_jwt_secret_key(data_dir: Path, token_hex: Callable[[int], str]) -> str:
    """The key that cookies are signed with, in ``<data-dir>/jwt_secret_key``; generated if absent."""
    return ensure_secret(data_dir / "jwt_secret_key", lambda: token_hex(BYTES["jwt_secret_key"]))


def read_secret(path: Path) -> str | None:
    """The secret in the file at ``path``; ``None`` where there is none. Blocking; raises DataDirError."""
    try:
        return _read(path) or None
    except OSError as error:
        raise DataDirError(f"The file {path} cannot be read: {error.strerror}.") from error


def keep_initial_admin_password(data_dir: Path, rng: random.Random) -> str:
    """The first password of admin, in ``<data-dir>/initial_admin_password``; generated if absent."""
    return ensure_secret(data_dir / "initial_admin_password", lambda: make_password(rng))


def keep_server_uuid(data_dir: Path, made: Callable[[], str]) -> str:
    """The id of this server among those on one database, in ``<data-dir>/server_uuid``; made if absent.

    It is not secret, but nobody else may change it.
    """
    return ensure_secret(data_dir / "server_uuid", made)


def replace_secret(path: Path, secret: str) -> bool:
    """Make the file at ``path`` hold ``secret``; a different content is kept in ``<name>.replaced``.

    Returns whether there was a different content. Blocking; raises DataDirError.
    """
    try:
        found = _read(path)
        if found == secret:
            return False
        if found:
            path.replace(path.with_name(f"{path.name}.replaced"))
        write_secret(path, secret)
        return bool(found)
    except OSError as error:
        raise DataDirError(f"The file {path} cannot be kept: {error.strerror}.") from error


def make_password(rng: random.Random, length: int = 12) -> str:
    """A password with at least a lower-case letter, an upper-case letter, a digit and a symbol.

    ``rng`` must be a ``SystemRandom``.
    """
    if length < SHORTEST["bootstrap_password"]:
        raise ValueError("a password has 8 characters at least")
    everything = "".join(_CLASSES)
    letters = [rng.choice(kind) for kind in _CLASSES]
    letters += [rng.choice(everything) for _ in range(length - len(letters))]
    rng.shuffle(letters)
    return "".join(letters)


def ensure_secret(path: Path, make: Callable[[], str]) -> str:
    """The secret in the file at ``path``, without white space around it; made and written when there is none.

    Written atomically; a file of ours that others can read gets mode 0600. Call it with the data directory locked.
    Blocking; raises DataDirError.
    """
    try:
        found = _read(path)
        if found:
            return found
        made = make()
        write_secret(path, made)
        return made
    except OSError as error:
        raise DataDirError(f"The file {path} cannot be kept: {error.strerror}.") from error


def _read(path: Path) -> str:
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError:
        return ""
    with os.fdopen(fd, "rb") as file:
        status = os.fstat(fd)
        # An administrator may have put a file of another user there; its mode is that user's choice.
        if status.st_mode & 0o077 and status.st_uid == os.geteuid():
            os.fchmod(fd, 0o600)
        content = file.read(LIMIT + 1)
    if len(content) > LIMIT:
        raise DataDirError(f"The file {path} is larger than {LIMIT} bytes, which no secret is.")
    try:
        return content.decode().strip()
    except UnicodeDecodeError:
        raise DataDirError(f"The file {path} is not text.") from None


def write_secret(path: Path, secret: str) -> None:
    """Write ``secret`` and a newline to the file at ``path`` with mode 0600, atomically and synced to the disk.

    Blocking; raises OSError.
    """
    durable_file.write(path, f"{secret}\n")
