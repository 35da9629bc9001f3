"""The secrets that a daemon makes for itself, each in a file that its owner alone can read."""

from __future__ import annotations

import os
import random
import string
from collections.abc import Callable, Mapping
from pathlib import Path

from gpustack import durable_file
from gpustack.config.datadir import DataDirError

SHORTEST = {"token": 16, "bootstrap_password": 8}
"""Characters that new secrets have at least which people choose, by the names of their options."""
LIMIT = 64 * 1024
"""Bytes that a secret file may have."""

SYMBOLS = "!@#$%^&*_+"
_CLASSES = (string.ascii_lowercase, string.ascii_uppercase, string.digits, SYMBOLS)


BYTES = {"token": 16, "jwt_secret_key": 32}
"""How long the secrets of a cluster are that are made, by the names of their files."""


def short(options: Mapping[str, str | None]) -> tuple[str, ...]:
    """Those of the options that are given and shorter than a new secret may be."""
    return tuple(name for name, least in SHORTEST.items() if 0 < len(options.get(name) or "") < least)


def keep_token(data_dir: Path, token_hex: Callable[[int], str]) -> str:
    """The cluster token in ``<data-dir>/token``, made with ``token_hex`` (``secrets.token_hex``) if absent."""
    return keep(data_dir / "token", lambda: token_hex(BYTES["token"]))


def keep_jwt_secret_key(data_dir: Path, token_hex: Callable[[int], str]) -> str:
    """The key that cookies are signed with, in ``<data-dir>/jwt_secret_key``; made if absent."""
    return keep(data_dir / "jwt_secret_key", lambda: token_hex(BYTES["jwt_secret_key"]))


def kept(path: Path) -> str | None:
    """The secret in the file at ``path``, if there is one. Raises DataDirError."""
    try:
        return _read(path) or None
    except OSError as error:
        raise DataDirError(f"The file {path} cannot be read: {error.strerror}.") from error


def keep_initial_admin_password(data_dir: Path, rng: random.Random) -> str:
    """The first password of admin, in ``<data-dir>/initial_admin_password``; made if absent."""
    return keep(data_dir / "initial_admin_password", lambda: make_password(rng))


def keep_server_uuid(data_dir: Path, made: Callable[[], str]) -> str:
    """What the server of this directory is called among those on its database: no secret, but kept as one."""
    return keep(data_dir / "server_uuid", made)


def bring_in_line(path: Path, secret: str) -> bool:
    """Let the file at ``path`` hold ``secret``; what it held before is kept beside it. Returns whether it held another.

    Raises DataDirError.
    """
    try:
        found = _read(path)
        if found == secret:
            return False
        if found:
            path.replace(path.with_name(f"{path.name}.replaced"))
        write(path, secret)
        return bool(found)
    except OSError as error:
        raise DataDirError(f"The file {path} cannot be kept: {error.strerror}.") from error


def make_password(rng: random.Random, length: int = 12) -> str:
    """A password with a letter of either case, a digit and a symbol at least; pass a ``SystemRandom``."""
    if length < SHORTEST["bootstrap_password"]:
        raise ValueError("a password has 8 characters at least")
    everything = "".join(_CLASSES)
    letters = [rng.choice(kind) for kind in _CLASSES]
    letters += [rng.choice(everything) for _ in range(length - len(letters))]
    rng.shuffle(letters)
    return "".join(letters)


def keep(path: Path, make: Callable[[], str]) -> str:
    """The secret in the file at ``path``, without the spaces around it; made and written when there is none.

    The file is there whole or not at all, and readable by its owner alone, also if it was not before. Raises
    DataDirError. Call it with the data directory locked.
    """
    try:
        found = _read(path)
        if found:
            return found
        made = make()
        write(path, made)
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
        # A file laid there by an administrator may be another user's: then its mode is theirs to choose.
        if status.st_mode & 0o077 and status.st_uid == os.geteuid():
            os.fchmod(fd, 0o600)
        content = file.read(LIMIT + 1)
    if len(content) > LIMIT:
        raise DataDirError(f"The file {path} is larger than {LIMIT} bytes, which no secret is.")
    try:
        return content.decode().strip()
    except UnicodeDecodeError:
        raise DataDirError(f"The file {path} is not text.") from None


def write(path: Path, secret: str) -> None:
    """Put ``secret`` and a newline into the file at ``path``, mode 0600, on disk before this returns.

    Raises OSError.
    """
    durable_file.write(path, f"{secret}\n")
