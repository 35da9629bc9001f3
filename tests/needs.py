"""What a test needs from the machine: skipped aloud where it is missing, and a failure in CI."""

from __future__ import annotations

import fcntl
import importlib.util
import os
import shutil
from pathlib import Path

import pytest


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
    """The folder of a ``llama-server`` with its RPC server; skips the test where nobody has built them.

    A build that is under way is waited for.
    """
    folder = Path(os.environ.get("GPUSTACK_TESTS_LLAMA_RPC", "/var/cache/gpustack-tests/llama-rpc"))
    lock = folder.with_name(f"{folder.name}.lock")
    if not (folder / "ggml-rpc-server").exists() and lock.exists():
        with lock.open() as file:
            fcntl.flock(file, fcntl.LOCK_SH)
    if not (folder / "ggml-rpc-server").exists():
        missing(f"there is no llama-server with RPC in {folder}", f"tests/make-llama-rpc {folder}")
    return folder
