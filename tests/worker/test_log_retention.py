"""Logs of instances that are gone stay for a while, and no longer; nothing else is touched."""

from __future__ import annotations

import os
import time
from datetime import timedelta
from pathlib import Path

from gpustack.domain.lifecycle import InstanceState as S
from gpustack.nursery.quarantine import Quarantine
from gpustack.worker.log_retention import KEEP, sweep
from tests.worker.conftest import Start
from tests.worker.daemon import custom_model, instance_of, utc_now
from tests.worker.server import FakeServer


def lay(folder: Path, name: str, at: float) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / name
    path.write_text("words")
    os.utime(path, (at, at))
    return path


def test_all_runs_of_an_instance_go_together_when_the_last_is_old(tmp_path: Path) -> None:
    for name, at in (("3.log", 50), ("3.1.log", 40), ("3.cut.log", 45), ("4.log", 150), ("4.1.log", 40)):
        lay(tmp_path, name, at)
    assert sweep(tmp_path, {5}, 100, Quarantine("old-logs", clock=time.monotonic)) == 3
    assert {path.name for path in tmp_path.iterdir()} == {"4.log", "4.1.log"}


def test_logs_of_the_living_and_files_of_others_stay(tmp_path: Path) -> None:
    names = ("7.log", "7.1.log", "notes.log", "12x.log", "08.log", "9.log.gz")
    for name in names:
        lay(tmp_path, name, 1)
    lay(tmp_path / "10.log", "inside", 1)
    os.utime(tmp_path / "10.log", (1, 1))
    assert sweep(tmp_path, {7}, 100, Quarantine("old-logs", clock=time.monotonic)) == 0
    assert {path.name for path in tmp_path.iterdir()} == {*names, "10.log"}
    assert sweep(tmp_path / "absent", {7}, 100, Quarantine("old-logs", clock=time.monotonic)) == 0


async def test_a_worker_sweeps_when_it_knows_its_instances(
    server: FakeServer, start: Start, tmp_path: Path
) -> None:
    long_ago = (utc_now() - timedelta(seconds=KEEP + 60)).timestamp()
    folder = tmp_path / "data" / "log" / "serve"
    gone = lay(folder, "77.log", long_ago)
    lately = lay(folder, "78.log", utc_now().timestamp())
    server.put(model := custom_model())
    server.put(instance := instance_of(model))
    own = lay(folder, f"{instance.id}.1.log", long_ago)
    await start()
    await server.until_state(S.RUNNING)
    await server.until(lambda: not gone.exists())
    assert lately.exists()
    assert own.exists() or (folder / f"{instance.id}.2.log").exists()
