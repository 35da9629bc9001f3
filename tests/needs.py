"""What a test needs from the machine: skipped aloud where it is missing, and a failure in CI."""

from __future__ import annotations

import fcntl
import importlib.util
import os
import shutil
import time
from pathlib import Path

import pytest

_BUILT_WITHIN = 180.0


def requires(program: str, *, apt: str | None = None) -> str:
    """Return the path of ``program``, or skip the test naming the command that would install it."""
    found = shutil.which(program)
    if found is None:
        missing(f"the program '{program}' is not on PATH", f"apt-get install {apt or program}")
    return str(found)


def requires_module(module: str, *, pip: str | None = None) -> None:
    """Skip the test, naming the command, when the Python module cannot be imported."""
    if importlib.util.find_spec(module) is None:
        missing(f"the Python module '{module}' is not installed", f"pip install {pip or module}")


def requires_root() -> None:
    """Skip the test when we are not root. Mark it ``root`` as well, so that ``make test`` leaves it out."""
    if os.geteuid() != 0:
        missing("this test needs root", "sudo make test-root")


def missing(what: str, command: str) -> None:
    """Skip the test, or in CI fail it: ``what`` is not there, and ``command`` would bring it."""
    sentence = f"{what}; to run this test: {command}"
    if os.environ.get("CI", "").lower() in ("1", "true", "yes"):
        pytest.fail(f"{sentence} (in CI a missing requirement is a failure)", pytrace=False)
    pytest.skip(sentence)


def llama_rpc() -> Path:
    """The folder of a ``llama-server`` with its RPC server; skips the test, aloud, where they have not been built.

    A build that is under way is waited for, but not long.
    """
    folder = Path(os.environ.get("GPUSTACK_TESTS_LLAMA_RPC", "/var/cache/gpustack-tests/llama-rpc"))
    end = time.monotonic() + _BUILT_WITHIN
    while not (folder / "ggml-rpc-server").exists():
        if not _is_locked(folder.with_name(f"{folder.name}.lock")) or time.monotonic() > end:
            pytest.skip(
                f"there is no llama-server with RPC in {folder}; to run this test: tests/make-llama-rpc {folder}"
            )
        time.sleep(1.0)
    return folder


def _is_locked(path: Path) -> bool:
    try:
        with path.open() as file:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except OSError as error:
        return isinstance(error, BlockingIOError)
    return False
