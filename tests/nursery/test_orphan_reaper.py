"""As process 1 of a container the daemon reaps orphans, and nobody whom it waits for itself."""

from __future__ import annotations

import subprocess
import sys

import pytest

CHILD = """
import ctypes, os, sys, tempfile
from pathlib import Path
import trio
from gpustack.nursery.process import spawn_group
from gpustack.nursery.process import OrphanReaper, ended_children

PR_SET_CHILD_SUBREAPER = 36
assert ctypes.CDLL(None).prctl(PR_SET_CHILD_SUBREAPER, 1) == 0  # as process 1 gets orphans, so do we

def leave_orphans(count):
    child = os.fork()
    if child == 0:
        for _ in range(count):
            if os.fork() == 0:
                os._exit(0)
        os._exit(0)
    os.waitpid(child, 0)

async def main():
    async with trio.open_nursery() as nursery:
        log = os.open(os.devnull, os.O_WRONLY)
        group = await spawn_group(["/bin/sh", "-c", "exit 7"], env=dict(os.environ), log=log)
        leave_orphans(3)
        reaper = OrphanReaper(every=0.05)
        await nursery.start(reaper.run)
        with trio.fail_after(30):
            while reaper.reaped < 3 or ended_children(os.getpid()) != {group.pid}:
                await trio.sleep(0.01)
            for _ in range(5):
                await trio.sleep(0.05)
        assert (await group.wait()).code == 7, "whom somebody waits for is left to them"
        await group.end(1.0)
        assert ended_children(os.getpid()) == frozenset()
        assert reaper.reaped == 3
        nursery.cancel_scope.cancel()

trio.run(main)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="subreapers are Linux's")
def test_orphans_are_reaped_and_our_own_children_are_not() -> None:
    done = subprocess.run([sys.executable, "-P", "-c", CHILD], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
