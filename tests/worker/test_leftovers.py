from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from gpustack.worker.leftovers import clear

LATER = 120.0
MAPS = "import mmap, sys; f = open(sys.argv[1], 'r+b'); m = mmap.mmap(f.fileno(), 0); f.close()"
OPENS = "import sys; f = open(sys.argv[1], 'r+b')"


@pytest.fixture
def memory(tmp_path: Path) -> Path:
    folder = tmp_path / "shm"
    folder.mkdir()
    return folder


def segment(memory: Path, name: str) -> Path:
    path = memory / name
    path.write_bytes(bytes(4096))
    return path


@contextmanager
def holding(path: Path, how: str) -> Iterator[subprocess.Popen[str]]:
    """A process that has the file mapped, or open."""
    program = f"{how}\nprint('here', flush=True)\nsys.stdin.read()"
    with subprocess.Popen(
        [sys.executable, "-c", program, str(path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None and process.stdout.readline() == "here\n"
        yield process
        process.kill()


@pytest.mark.parametrize("how", [MAPS, OPENS])
def test_a_segment_goes_when_nobody_has_it_any_more_and_not_before(memory: Path, how: str) -> None:
    held, orphan = segment(memory, "psm_0123abcd"), segment(memory, "psm_deadbeef")
    with holding(held, how):
        assert clear(time.time() + LATER, memory) == 1
        assert held.exists() and not orphan.exists()
    assert clear(time.time() + LATER, memory) == 1
    assert not held.exists()


def test_what_is_young_or_of_others_stays(memory: Path, tmp_path: Path) -> None:
    young = segment(memory, "psm_01234567")
    assert clear(time.time(), memory) == 0 and young.exists()
    names = ("sem.mp-abcdefgh", "psm_012345678", "psm_XXXXXXXX", "nccl-abc123")
    kept = [segment(memory, name) for name in names]
    target = segment(tmp_path, "target")
    (memory / "psm_00000000").symlink_to(target)
    (memory / "psm_11111111").mkdir()
    young.unlink()
    assert clear(time.time() + LATER, memory) == 0
    assert all(path.exists() for path in kept) and target.exists()


def test_where_processes_cannot_be_looked_at_nothing_is_removed(memory: Path, tmp_path: Path) -> None:
    orphan = segment(memory, "psm_01234567")
    processes = tmp_path / "proc"
    (processes / "12").mkdir(parents=True)
    (processes / "12/maps").mkdir()  # reading it fails, and not because the process has ended
    assert clear(time.time() + LATER, memory, processes) == 0
    assert orphan.exists()
    assert clear(time.time() + LATER, tmp_path / "missing") == 0


def test_the_owner_counts(memory: Path) -> None:
    if os.geteuid() != 0:
        pytest.skip("only root can give a file away")
    orphan = segment(memory, "psm_01234567")
    os.chown(orphan, 12345, 12345)
    assert clear(time.time() + LATER, memory) == 0 and orphan.exists()
