"""The worker's own credential in its data directory: who has lost it has to be let in anew."""

from __future__ import annotations

from pathlib import Path

from gpustack.config.datadir import DataDirError
from gpustack.config.secret import read_secret, write_secret

_NAME = "worker_credential"


def kept_credential(data_dir: Path) -> str | None:
    """The one from the last time, if there is one that can be read."""
    try:
        return read_secret(data_dir / _NAME)
    except DataDirError:
        return None


def keep_credential(data_dir: Path, credential: str) -> None:
    """Keep it, whole or not at all, for its owner alone. Raises OSError."""
    write_secret(data_dir / _NAME, credential)
