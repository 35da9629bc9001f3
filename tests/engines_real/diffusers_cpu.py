"""Real diffusers on this machine's processors, in an environment that the first test makes."""

from __future__ import annotations

import os
import subprocess
from functools import cache
from pathlib import Path

from tests.child import ROOT, environment
from tests.engines_real import vllm_cpu
from tests.needs import missing

CACHE = Path(os.environ.get("GPUSTACK_TEST_DIFFUSERS", "/var/cache/gpustack-tests/diffusers-cpu"))


@cache
def environment_fault() -> str:
    """Why diffusers cannot be had here; empty when it is there. Makes its environment at the first call."""
    made = subprocess.run(
        [ROOT / "tests/make-diffusers-cpu", CACHE, vllm_cpu.CACHE], capture_output=True, text=True
    )
    if made.returncode == 0:
        return ""
    lines = [line for line in made.stderr.splitlines() if line.strip()]
    return lines[-1] if lines else f"exit code {made.returncode}"


def diffusers_python() -> str:
    """A Python that has diffusers; skips the test where it cannot be had."""
    if fault := environment_fault():
        missing(
            f"diffusers for processors cannot be made: {fault}",
            f"tests/make-diffusers-cpu {CACHE} {vllm_cpu.CACHE}",
        )
    return str(CACHE / "venv" / "bin" / "python")


def diffusers_packages() -> list[str]:
    """The folders of its packages, and of those that it uses."""
    asked = "import sys; print(*(path for path in sys.path if path.endswith('site-packages')), sep='\\n')"
    command = [diffusers_python(), "-c", asked]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout.split("\n")[:-1]


def make_tiny_diffusion(folder: Path) -> Path:
    """A tiny Stable Diffusion, made by that Python."""
    subprocess.run(
        [diffusers_python(), "-m", "tests.models.tiny_diffusion", str(folder)],
        cwd=ROOT,
        env=environment(),
        check=True,
        capture_output=True,
    )
    return folder
