"""Memory that was let go goes back to the system, and nobody walks through the heap for little."""

from __future__ import annotations

import platform
import subprocess
import sys

import attrs
import pytest

from gpustack.nursery.heap import HeapTrimmer

MIB = 1 << 20


@attrs.define
class Heap:
    """What a C library would tell, and how often it was told to trim."""

    free: int | None = 0
    trims: int = 0

    def trim(self) -> None:
        self.trims += 1


async def looked(heap: Heap, *frees: int | None) -> list[int]:
    """How often the heap was trimmed after each look."""
    service, trims = HeapTrimmer(lambda: heap.free, heap.trim), []
    for free in frees:
        heap.free = free
        await service.look()
        trims.append(heap.trims)
    return trims


async def test_the_heap_is_trimmed_when_much_has_become_free_and_not_again_for_the_same() -> None:
    assert await looked(Heap(), 10 * MIB, 100 * MIB, 100 * MIB, 110 * MIB) == [0, 1, 1, 1]


async def test_what_was_given_back_and_used_again_is_given_back_again() -> None:
    assert await looked(Heap(), 100 * MIB, 20 * MIB, 30 * MIB, 100 * MIB) == [1, 1, 1, 2]


async def test_a_c_library_that_tells_nothing_is_left_alone() -> None:
    assert await looked(Heap(), None, None) == [0, 0]


GROWN = """
from gpustack.nursery.heap import keep_large_apart, trim
from pathlib import Path
import random
def resident(): return int(Path("/proc/self/statm").read_text().split()[1]) * 4096
keep_large_apart()
before = resident()
small = [b"x" * 20000 for _ in range(4000)]
large = [b"x" * (3 << 20) for _ in range(20)]
kept = small[::100]
grown = resident() - before
del small, large
trim()
print(grown, resident() - before)
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="the C library is another one")
def test_a_process_that_let_much_go_is_small_again() -> None:
    said = subprocess.run([sys.executable, "-c", GROWN], capture_output=True, text=True, check=True).stdout
    grown, left = map(int, said.split())
    assert grown > 100 * MIB
    assert left < 40 * MIB
