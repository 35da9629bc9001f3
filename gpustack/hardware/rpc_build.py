"""What a ``llama-server`` program can do over RPC, and the RPC server that came with it."""

from __future__ import annotations

import hashlib
import os
import re
from pathlib import Path

_PROGRAMS = ("ggml-rpc-server", "rpc-server")
"""The RPC server's name, and its former one."""
_COMMIT = re.compile(r"^version:\s*\S+\s*\((?:build \d+, commit )?([0-9a-f]{7,40})\)", re.MULTILINE)
_LONGEST = 1 << 30


def rpc_server_beside(program: str) -> str | None:
    """The RPC server in the folder of a ``llama-server`` (links are followed); ``None`` if there is none."""
    for folder in (Path(program).parent, Path(program).resolve().parent):
        for name in _PROGRAMS:
            found = folder / name
            if found.is_file() and os.access(found, os.X_OK):
                return str(found)
    return None


def build_digest(version_answer: str, rpc_server: str | None) -> str | None:
    """What tells builds apart that may not work together over RPC: the commit that ``--version`` names, else a hash of
    the RPC server's file. ``None`` where neither is known. Blocks."""
    commit = _COMMIT.search(version_answer)
    if commit is not None:
        return commit.group(1)
    if rpc_server is None:
        return None
    try:
        with Path(rpc_server).open("rb") as file:
            if os.fstat(file.fileno()).st_size > _LONGEST:
                return None
            return hashlib.file_digest(file, "sha256").hexdigest()[:16]
    except OSError:
        return None
