"""A program under test as a child process that says where it listens on its first line."""

from __future__ import annotations

import contextlib
import os
import select
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent


def environment(**extra: str) -> dict[str, str]:
    """This process's environment with the checkout importable and the user's own settings left out."""
    kept = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(("GPUSTACK_", "HF_", "HUGGING")) and not name.lower().endswith("_proxy")
    }
    return {**kept, "PYTHONPATH": str(ROOT), **extra}


@contextlib.contextmanager
def child(
    arguments: Sequence[str], *, env: Mapping[str, str] | None = None, stderr: Path | None = None
) -> Iterator[subprocess.Popen[str]]:
    """Run ``python <arguments>`` in a session of its own; what is left of it at the end is killed."""
    with contextlib.ExitStack() as stack:
        errors = stack.enter_context(stderr.open("a")) if stderr is not None else None
        process = subprocess.Popen(
            [sys.executable, *arguments],
            env=dict(env) if env is not None else environment(),
            cwd=ROOT,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=errors,
            text=True,
            start_new_session=True,
        )
        try:
            yield process
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait(timeout=10)
            if process.stdout is not None:
                process.stdout.close()


def said(process: subprocess.Popen[str], *, within: float = 30.0) -> str:
    """The next line the child prints; raises AssertionError when it ends or the time is up first."""
    assert process.stdout is not None
    deadline = time.monotonic() + within
    ready, _, _ = select.select([process.stdout], [], [], max(0.0, deadline - time.monotonic()))
    if not ready:
        raise AssertionError(f"nothing said within {within} s by {process.args}")
    line = process.stdout.readline()
    if not line:
        raise AssertionError(f"{process.args} ended without a word, exit code {process.wait(10)}")
    return line.strip()
