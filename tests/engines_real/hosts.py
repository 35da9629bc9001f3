"""Two hosts on one machine: this one, and a network namespace, joined by a cable; each with a GPU that is made up."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.needs import requires, requires_root

NETWORK = f"10.{200 + os.getpid() % 50}.{os.getpid() // 50 % 250}"
HERE, THERE = f"{NETWORK}.1", f"{NETWORK}.2"
NAMESPACE = f"gpustack{os.getpid()}"
_GPU = """
resources:
  gpu_devices:
    - {index: 0, name: made up, vendor: NVIDIA, type: cuda, memory: {total: 17179869184}}
system_reserved: {ram: 0, vram: 0}
"""
_SAID = {"__version__": "2.13.0", "cuda": "13.0", "hip": None, "xpu": None}
_PYTHON = f"""#!/bin/sh
# What a build for GPUs says of itself, of one that has none: so that it is placed on GPUs that are made up.
if [ "$1" = -c ]; then
    echo '{json.dumps({"version": "0.32.0+cpu", "torch": _SAID, "plugins": []})}'
    exit 0
fi
"""


@contextmanager
def cable() -> Iterator[None]:
    """Another host: commands run there behind ``on_the_other``. Needs root."""
    requires_root()
    ip = requires("ip", apt="iproute2")
    here, there = f"gs{os.getpid()}a", f"gs{os.getpid()}b"

    def run(*words: str) -> None:
        subprocess.run([ip, *words], check=True, capture_output=True)

    run("netns", "add", NAMESPACE)
    try:
        run("link", "add", here, "type", "veth", "peer", "name", there, "netns", NAMESPACE)
        run("addr", "add", f"{HERE}/24", "dev", here)
        run("link", "set", here, "up")
        run("-n", NAMESPACE, "addr", "add", f"{THERE}/24", "dev", there)
        run("-n", NAMESPACE, "link", "set", there, "up")
        run("-n", NAMESPACE, "link", "set", "lo", "up")
        yield
    finally:
        run("netns", "del", NAMESPACE)


def on_the_other() -> tuple[str, ...]:
    """What a command begins with that runs on the other host."""
    return ("ip", "netns", "exec", NAMESPACE)


def with_gpu(folder: Path, name: str) -> Path:
    """The configuration of a worker that has a GPU, as far as it knows."""
    file = folder / f"{name}.yaml"
    file.write_text(_GPU)
    return file


def pretending(folder: Path, programs: Path) -> Path:
    """A folder of programs in which those of ``programs`` are called builds for GPUs."""
    folder.mkdir(parents=True)
    for name in ("vllm", "ray"):
        (folder / name).write_text(f'#!/bin/sh\nexec {programs / name} "$@"\n')
    (folder / "python").write_text(f'{_PYTHON}exec {programs / "python"} "$@"\n')
    for program in folder.iterdir():
        program.chmod(0o755)
    return folder
