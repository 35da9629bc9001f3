"""A large cluster for the console: a server whose database is filled beforehand, and workers that only speak.

    python benchmarks/console_world.py [--workers 1000] [--instances 5000] [--port 0]

Serves it until interrupted, for looking at pages; ``benchmarks/console.py`` measures with it.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import random
import sys
import tempfile
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from typing import TypeVar

import attrs
import trio

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from benchmarks.scale import TOKEN, Fake, address_of
from gpustack.domain.artifact import ModelSource, SourceKind
from gpustack.domain.device import Device, DeviceCore, DeviceMemory
from gpustack.domain.document import encode
from gpustack.domain.instance import Claim, ModelInstance, Placement
from gpustack.domain.lifecycle import InstanceState, Party
from gpustack.domain.model import Model
from gpustack.domain.record import Record
from gpustack.domain.report import StatusReport
from gpustack.domain.unit import GIB
from gpustack.domain.worker import Condition, Worker, WorkerState, WorkerStatus
from gpustack.store import Store, StoreSettings, open_store
from gpustack.store.transaction import Tx
from tests.daemon import Daemon, daemon
from tests.policy.worlds import CUSTOM, worker

R = TypeVar("R", bound=Record)

PASSWORD = "Console-1x!"
GPUS = 8
EACH = 25
"""Replicas of a model."""
_NAMES = (
    "llama-3.3-70b",
    "qwen3-32b",
    "deepseek-r1",
    "mistral-small",
    "bge-m3",
    "千问-8b",
    'gemma "fine"',
    "whisper-é",
)
_AT_ONCE = 500


def filled(data_dir: Path, workers: int, instances: int) -> None:
    """Write the records of the cluster into a new database."""
    trio.run(_fill, data_dir, workers, instances)


async def _fill(data_dir: Path, workers: int, instances: int) -> None:
    store = await open_store(StoreSettings(data_dir=str(data_dir)), lambda: datetime.now(UTC))
    rng, now = random.Random(1), datetime.now(UTC)
    async with trio.open_nursery() as nursery:
        await nursery.start(store.run)
        machines = await _inserted(store, [_worker(key, now) for key in range(1, workers + 1)])
        models = await _inserted(store, [_model(key) for key in range(-(-instances // EACH))])
        replicas = [
            _replica(key, models[key // EACH], machines[key % len(machines)], key // len(machines), rng)
            for key in range(instances)
        ]
        for start in range(0, len(replicas), _AT_ONCE):
            await store.write(partial(_write, replicas[start : start + _AT_ONCE]))
        nursery.cancel_scope.cancel()


async def _inserted(store: Store, records: Sequence[R]) -> list[R]:
    made: list[R] = []
    for start in range(0, len(records), _AT_ONCE):
        made += await store.write(partial(_insert, records[start : start + _AT_ONCE]))
    return made


def _insert(records: Sequence[R], tx: Tx) -> list[R]:
    return [tx.insert(one) for one in records]


def _write(replicas: Sequence[Replica], tx: Tx) -> None:
    for one in replicas:
        one.into(tx)


def _worker(key: int, now: datetime) -> Worker:
    plain = worker(
        key,
        ram=512,
        name=f"n{key}",
        ip=f"10.1.{key // 250}.{key % 250 + 1}",
        labels={"os": "linux", "arch": "amd64", "rack": f"r{key // 40}"},
        gpus=_devices(key, 0),
        build=CUSTOM,
        condition=Condition(state=WorkerState.READY, since=now - timedelta(hours=key % 90)),
        cordoned=key % 97 == 3,
    )
    return attrs.evolve(plain, id=0)


def _devices(key: int, turn: int) -> list[Device]:
    rng = random.Random(key * 100 + turn)
    return [_device(index, key, rng) for index in range(GPUS)]


def _device(index: int, key: int, rng: random.Random) -> Device:
    strangers = rng.randrange(2, 12) * GIB if (key + index) % 23 == 0 else 0
    used = int(rng.uniform(40, 70) * GIB) if index < 5 else 0
    memory = DeviceMemory(total=80 * GIB, used=used + strangers, foreign=strangers)
    return Device(
        index=index,
        name="NVIDIA H100 80GB HBM3",
        vendor="NVIDIA",
        type="cuda",
        memory=memory,
        core=DeviceCore(total=132, utilization_rate=rng.uniform(0, 100) if used else 0),
        temperature=rng.uniform(30, 85),
    )


def _model(key: int) -> Model:
    return Model(
        name=f"{_NAMES[key % len(_NAMES)]}-{key}",
        source=ModelSource(kind=SourceKind.LOCAL_PATH, local_path="/models/m.gguf"),
        replicas=EACH,
        ready_replicas=EACH - 1,
    )


@attrs.frozen
class Replica:
    """An instance, where it is to run, and whether it has failed there."""

    instance: ModelInstance
    place: Placement
    failed: bool

    def into(self, tx: Tx) -> None:
        """Write it as if it had gone all the way."""
        made = tx.insert(self.instance)
        made = tx.move(made, InstanceState.SCHEDULED, by=Party.SCHEDULER, placement=self.place)
        made = tx.move(made, InstanceState.INITIALIZING, by=Party.WORKER)
        if self.failed:
            tx.move(made, InstanceState.ERROR, by=Party.WORKER, message="The engine ended with exit status 1")
        else:
            tx.move(made, InstanceState.RUNNING, by=Party.WORKER)


def _replica(key: int, model: Model, machine: Worker, index: int, rng: random.Random) -> Replica:
    claim = Claim(ram=4 * GIB, vram={index % GPUS: rng.randrange(40, 76) * GIB})
    instance = ModelInstance(
        name=f"{model.name}-{key:05x}",
        model_id=model.id,
        model_name=model.name,
        source=model.source,
        generation=model.generation,
    )
    return Replica(
        instance, Placement(worker_id=machine.id, gpu_indexes=tuple(claim.vram), claim=claim), key % EACH == 7
    )


@contextmanager
def large_cluster(workers: int, instances: int, *options: str) -> Iterator[tuple[Daemon, list[Fake]]]:
    """A server with that many workers and instances, and those workers, which have reported their loads once."""
    with tempfile.TemporaryDirectory() as folder:
        data_dir = Path(folder) / "server"
        data_dir.mkdir(mode=0o700)
        filled(data_dir, workers, instances)
        given = (
            *(
                "--disable-worker",
                "--heartbeat-timeout",
                "86400",
                "--reschedule-grace",
                "86400",
                "--bootstrap-password",
                PASSWORD,
            ),
            *options,
        )
        with daemon(data_dir, *given, env={"GPUSTACK_TOKEN": TOKEN}) as server:
            # In a thread of its own: who drives a browser has a loop in theirs.
            with ThreadPoolExecutor(1) as thread:
                fleet = thread.submit(lambda: asyncio.run(_reporting(server, range(1, workers + 1)))).result()
            yield server, fleet


async def _reporting(server: Daemon, keys: range) -> list[Fake]:
    gate = asyncio.Semaphore(20)

    async def one(key: int) -> Fake:
        async with gate:
            made = Fake(*await asyncio.open_connection(*address_of(server)))
            await made.join(key)
            made.reports = [_report(key, turn) for turn in range(2)]
            await made.report()
            return made

    return await asyncio.gather(*map(one, keys))


def _report(key: int, turn: int) -> bytes:
    status: WorkerStatus = worker(key, ram=512, gpus=_devices(key, turn), build=CUSTOM).status
    return encode(StatusReport(status=status, ip="127.0.0.1"))


def main() -> None:
    parser = argparse.ArgumentParser(prog="benchmarks/console_world.py", description=__doc__)
    parser.add_argument("--workers", type=int, default=1000)
    parser.add_argument("--instances", type=int, default=5000)
    parser.add_argument("--port", type=int, default=0)
    options = parser.parse_args()
    port = ("--host", "127.0.0.1", "--port", str(options.port))
    with large_cluster(options.workers, options.instances, *port) as (server, _):
        print(f"{server.url}: sign in as admin with {PASSWORD}", flush=True)
        with contextlib.suppress(KeyboardInterrupt):
            server.process.wait()


if __name__ == "__main__":
    main()
