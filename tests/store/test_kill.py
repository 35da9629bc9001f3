"""A daemon killed while it writes loses nothing it had acknowledged."""

from __future__ import annotations

import os
import signal

from gpustack.domain.access import User
from tests.child import child, said

from .conftest import Opened

WRITING = """
import sys, trio
from datetime import UTC, datetime
from gpustack.domain.access import User
from gpustack.store import StoreSettings, open_store

async def write(store, life, task):
    for number in range(1_000_000):
        made = await store.write(lambda tx: tx.insert(User(username=f"{life}-{task}-{number}")))
        print(made.id, made.username, store.snapshot.revision, flush=True)

async def main(url, life):
    store = await open_store(StoreSettings(data_dir="unused", url=url), lambda: datetime.now(UTC))
    async with trio.open_nursery() as nursery:
        await nursery.start(store.run)
        for task in range(8):
            nursery.start_soon(write, store, life, task)

trio.run(main, sys.argv[1], sys.argv[2])
"""


async def test_no_acknowledged_write_is_lost_when_the_daemon_is_killed(opened: Opened, url: str) -> None:
    acknowledged: dict[int, str] = {}
    last = 0
    for life in range(5):
        with child(["-c", WRITING, url, str(life)]) as process:
            lines = [said(process) for _ in range(40 + 25 * life)]
            os.kill(process.pid, signal.SIGKILL)
            assert process.stdout is not None
            # The last line may be cut off in the middle: that one was not said.
            lines += [line for line in process.stdout.read().splitlines(keepends=True) if line.endswith("\n")]
        for line in lines:
            key, name, revision = line.split()
            acknowledged[int(key)] = name
            assert int(revision) > last  # revisions go on where the life before had left
        last = max(int(line.split()[2]) for line in lines)
        async with opened() as store:
            kept = {user.id: user.username for user in store.snapshot.users.values()}
            assert acknowledged.items() <= kept.items()
            assert store.snapshot.revision >= last
            changes = store.changes_since(max(0, store.snapshot.revision - 100))
            assert [change.revision for change in changes][-1] == store.snapshot.revision
            last = store.snapshot.revision
    async with opened() as store:
        made = await store.write(lambda tx: tx.insert(User(username="after")))
        assert made.id > max(acknowledged)
