"""How much host memory processes hold beside files."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from gpustack.hardware.process_memory import anonymous_memory

MIB = 1 << 20


def put(root: Path, pid: int, text: str) -> None:
    folder = root / "proc" / str(pid)
    folder.mkdir(parents=True)
    (folder / "status").write_text(text)


def test_what_is_in_memory_and_swapped_out_counts_and_files_do_not(tmp_path: Path) -> None:
    put(
        tmp_path,
        7,
        "Name:\tx\nVmRSS:\t  9000 kB\nRssAnon:\t  1000 kB\nRssFile:\t  8000 kB\nVmSwap:\t   24 kB\n",
    )
    put(tmp_path, 8, "RssAnon:\t  2000 kB\nVmSwap:\t   0 kB\n")
    put(tmp_path, 9, "RssAnon:\tmany kB\n")
    assert anonymous_memory([7, 8, 9, 10], tmp_path) == (1000 + 24 + 2000) * 1024


def test_of_none_that_can_be_read_nothing_is_known(tmp_path: Path) -> None:
    assert anonymous_memory([7], tmp_path) is None
    assert anonymous_memory([], tmp_path) is None


def test_a_program_that_fills_memory_is_seen_to(tmp_path: Path) -> None:
    program = "import sys; kept = b'x' * (64 << 20); print('ready', flush=True); sys.stdin.read()"
    with subprocess.Popen(
        [sys.executable, "-c", program], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as child:
        assert child.stdout is not None and child.stdin is not None
        child.stdout.readline()
        found, ours = anonymous_memory([child.pid]), anonymous_memory([os.getpid()])
        child.stdin.close()
    assert found is not None and found > 64 * MIB
    assert ours is not None and ours > MIB
