"""What a thousand workers cost a server: joining, heartbeats and reports of load, the list of workers, many replicas,
their streams of assignments, and a tenth of them that falls silent.

    python benchmarks/scale.py [--workers 1000] [--seconds 30] [--postgres] [--against COMMIT] [--json]

A real server; its workers are connections of this process, which say what real ones say and start nothing. CPU is that
of the server alone. With ``--json`` one object a line. With ``--postgres`` its records are in a PostgreSQL that is
started for it, and the streams are those of a second server. ``--against`` checks a commit out beside this one and
measures it afterwards on the same machine, for the ratios.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import random
import statistics
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import attrs

HERE = Path(__file__).resolve().parent
sys.path.insert(0, os.environ.get("BENCHMARKED", str(HERE.parent)))

from benchmarks.measure import cpu, pss  # noqa: E402
from gpustack.domain.document import encode  # noqa: E402
from gpustack.domain.report import JoinRequest, StatusReport  # noqa: E402
from gpustack.domain.worker import Cpu, WorkerStatus  # noqa: E402
from tests.daemon import Daemon, daemon  # noqa: E402
from tests.databases import running  # noqa: E402
from tests.policy.worlds import CUSTOM, gpu, worker  # noqa: E402

TOKEN = "a-token-for-the-benchmark-of-scale"
EVERY = 15.0
"""Seconds between two heartbeats, and two reports of load, of one worker."""
AT_ONCE = 20
REPLICAS = 200
CHANGES = 5
"""Changes of a model that every worker runs."""
TIMEOUT, GRACE = 30.0, 40.0
"""Seconds of silence until a worker is not ready, and until what it ran is placed anew."""
GIVEN_UP_AFTER = 30.0
"""Seconds after the grace in which all have to be placed anew, or it counts as not done."""
LOADS = 4
"""Reports of each worker that differ in their loads, sent by turns."""
TARGETS = {
    "joining, CPU of one worker": (2.0, "ms"),
    "heartbeats and loads, CPU": (10.0, "% of a core"),
    "first page of the workers": (30.0, "ms"),
    "replicas placed after": (2.0, "s"),
    "a change at all streams of assignments, p99": (0.5, "s"),
    "replicas of a silent tenth placed anew after": (2.0, "s"),
    "memory": (150.0, "MB (PSS)"),
    "memory with a replica on each worker and all streams open": (150.0, "MB (PSS)"),
}


def main() -> None:
    parser = argparse.ArgumentParser(prog="benchmarks/scale.py", description=__doc__)
    parser.add_argument("--workers", type=int, default=1000)
    parser.add_argument("--seconds", type=float, default=30.0)
    parser.add_argument("--postgres", action="store_true")
    parser.add_argument("--against")
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--bare", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.bare:
        print(json.dumps(measured(options.workers, options.seconds, postgres=options.postgres)))
        return
    show_all(options)


def show_all(options: argparse.Namespace) -> None:
    # Not in an older tree, in which this script measures too.
    from benchmarks.checkout import checkout, measured_in
    from benchmarks.figure import Figure

    given = ["--workers", str(options.workers), "--seconds", str(options.seconds)]
    given += ["--postgres"] * options.postgres
    where = " (PostgreSQL)" * options.postgres
    own = json.loads(measured_in(HERE.parent, "scale.py", *given))
    for name, (target, unit) in TARGETS.items():
        promised = 1.0 if options.postgres and name.startswith("a change") else target
        Figure(name + where, own[name], promised, unit).show(as_json=options.json)
    if options.against is None:
        return
    with checkout(options.against) as tree:
        other = json.loads(measured_in(tree, "scale.py", *given))
    for name in TARGETS:
        ratio = None if other[name] is None or not own[name] else other[name] / own[name]
        wanted = 8.0 if name == "heartbeats and loads, CPU" else None
        told = f"{name}{where}: {options.against} against this"
        Figure(told, ratio, wanted, "x", "higher").show(as_json=options.json)


def measured(count: int, seconds: float, *, postgres: bool) -> dict[str, float | None]:
    with servers(postgres) as found:
        return asyncio.run(_measured(*found, count, seconds))


@contextmanager
def servers(postgres: bool) -> Iterator[tuple[Daemon, Daemon]]:
    """The server, and the one that streams assignments: the same, but on PostgreSQL."""
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        options = ["--disable-worker", "--heartbeat-timeout", str(TIMEOUT), "--reschedule-grace", str(GRACE)]
        if postgres:
            options += ["--database-url", stack.enter_context(running("postgresql")).create()]
        env = {"GPUSTACK_TOKEN": TOKEN}
        first = stack.enter_context(daemon(folder / "server", *options, env=env))
        second = stack.enter_context(daemon(folder / "second", *options, env=env)) if postgres else first
        yield first, second


def address_of(server: Daemon) -> tuple[str, int]:
    host, port = server.url.removeprefix("http://").split(":")
    return host, int(port)


async def _measured(server: Daemon, streaming: Daemon, count: int, seconds: float) -> dict[str, float | None]:
    pid = server.process.pid
    tenth = await joined(address_of(server), range(1, count // 10 + 1))
    await all_of(tenth, Fake.report)
    there = await placed(server, tenth, "early", REPLICAS, 40)
    before = cpu(pid)
    others = await joined(address_of(server), range(count // 10 + 1, count + 1))
    joining = (cpu(pid) - before) / len(others)
    fleet = tenth + others
    await all_of(others, Fake.report)
    await all_of(fleet, Fake.beat)
    before = cpu(pid)
    answered = await steadily(fleet, seconds)
    # A server that falls behind is asked less: what counts is the share that all workers would take.
    share = (cpu(pid) - before) / answered * 2 * count / EVERY
    pages = [await asyncio.to_thread(timed, server, "/v1/workers") for _ in range(5)]
    placing = await placed(server, fleet, "many", REPLICAS, 40)
    memory = pss(pid) / 1e6
    streams, most = await told(server, streaming, fleet)
    return {
        "joining, CPU of one worker": joining * 1000,
        "heartbeats and loads, CPU": share * 100,
        "first page of the workers": statistics.median(pages) * 1000,
        "replicas placed after": placing,
        "a change at all streams of assignments, p99": streams,
        "replicas of a silent tenth placed anew after": None
        if there is None
        else await anew(server, tenth, others),
        "memory": memory,
        "memory with a replica on each worker and all streams open": most,
    }


@attrs.define(eq=False)
class Fake:
    """A worker as the server sees one."""

    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter
    number: int = 0
    credential: str = ""
    reports: list[bytes] = attrs.field(factory=list)
    sent: int = 0

    async def join(self, key: int) -> None:
        wanted = JoinRequest(
            name=f"n{key}", worker_uuid=f"uuid-{key}", hostname=f"n{key}", ip="127.0.0.1", port=20000 + key
        )
        answer = await self.call("POST", "/v1/workers", encode(wanted), TOKEN)
        self.number, self.credential = answer["id"], answer["credential"]
        self.reports = [encode(StatusReport(status=one, ip="127.0.0.1")) for one in statuses(key)]

    async def beat(self) -> None:
        await self.call("POST", f"/v1/workers/{self.number}/heartbeat", b"{}", self.credential)

    async def report(self) -> None:
        body = self.reports[self.sent % len(self.reports)]
        self.sent += 1
        await self.call("PUT", f"/v1/workers/{self.number}/status", body, self.credential)

    async def call(self, method: str, path: str, body: bytes, bearer: str) -> Any:
        self.writer.write(
            f"{method} {path} HTTP/1.1\r\nhost: server\r\ncontent-type: application/json\r\n"
            f"authorization: Bearer {bearer}\r\ncontent-length: {len(body)}\r\n\r\n".encode()
            + body
        )
        head = await self.reader.readuntil(b"\r\n\r\n")
        status, length = int(head.split()[1]), 0
        for line in head.lower().split(b"\r\n"):
            if line.startswith(b"content-length:"):
                length = int(line.partition(b":")[2])
        answer = await self.reader.readexactly(length)
        assert status < 300, (status, answer)
        return json.loads(answer) if answer else None


def statuses(key: int) -> list[WorkerStatus]:
    """What a machine of 8 GPUs measures at several times."""
    rng = random.Random(key)
    plain = worker(key, ram=512, gpus=[gpu(index, 80) for index in range(8)], build=CUSTOM).status
    found = []
    for _ in range(LOADS):
        devices = tuple(
            attrs.evolve(
                device,
                temperature=rng.uniform(30, 90),
                memory=attrs.evolve(
                    device.memory, used=rng.randrange(80 << 30), utilization_rate=rng.uniform(0, 100)
                ),
            )
            for device in plain.gpu_devices
        )
        memory = attrs.evolve(
            plain.memory, used=rng.randrange(512 << 30), utilization_rate=rng.uniform(0, 100)
        )
        cpus = Cpu(total=64, utilization_rate=rng.uniform(0, 100))
        found.append(attrs.evolve(plain, gpu_devices=devices, memory=memory, cpu=cpus))
    return found


async def joined(address: tuple[str, int], keys: range) -> list[Fake]:
    gate = asyncio.Semaphore(AT_ONCE)

    async def one(key: int) -> Fake:
        async with gate:
            made = Fake(*await asyncio.open_connection(*address))
            await made.join(key)
            return made

    return await asyncio.gather(*(one(key) for key in keys))


async def all_of(fleet: list[Fake], act: Any) -> None:
    gate = asyncio.Semaphore(AT_ONCE)

    async def one(fake: Fake) -> None:
        async with gate:
            await act(fake)

    await asyncio.gather(*map(one, fleet))


async def steadily(fleet: list[Fake], seconds: float) -> int:
    """Each sends a heartbeat and a report in every interval, at times of its own. How many were answered in time."""
    end, answered = time.monotonic() + seconds, 0

    async def live(fake: Fake) -> None:
        nonlocal answered
        rng = random.Random(fake.number)
        at = time.monotonic() + rng.uniform(0, EVERY)
        while at < end:
            await asyncio.sleep(max(at - time.monotonic(), 0))
            await fake.beat()
            await fake.report()
            answered += 2
            at += EVERY
        await asyncio.sleep(max(end - time.monotonic(), 0))

    await asyncio.gather(*map(live, fleet))
    return answered


def timed(server: Daemon, path: str) -> float:
    began = time.perf_counter()
    status, _ = server.call("GET", path)
    assert status == 200
    return time.perf_counter() - began


async def placed(server: Daemon, fleet: list[Fake], name: str, replicas: int, claim: int) -> float | None:
    """Seconds until all replicas of a deployment have a place; ``None`` when that takes longer than two minutes."""
    placing = asyncio.create_task(asyncio.to_thread(_placed, server, name, replicas, claim))
    while not placing.done():
        await all_of(fleet, Fake.beat)
        await asyncio.wait([placing], timeout=EVERY / 3)
    return placing.result()


def _placed(server: Daemon, name: str, replicas: int, claim: int) -> float | None:
    wanted = {
        "name": name,
        "source": "local_path",
        "local_path": "/nonexistent",
        "backend": "custom",
        "command": "true {port}",
        "replicas": replicas,
        "env": {"GPUSTACK_MODEL_VRAM_CLAIM": str(claim << 30)},
    }
    began = time.perf_counter()
    status, answer = server.call("POST", "/v1/models", wanted)
    assert status == 200, answer
    while time.perf_counter() - began < 120:
        items = instances(server, name, replicas)
        if len(items) == replicas and all(item["worker_id"] for item in items):
            return time.perf_counter() - began
        time.sleep(0.1)
    return None


def instances(server: Daemon, name: str, count: int) -> list[dict[str, Any]]:
    """Those of a model."""
    pages = range(1, -(-count // 100) + 1)
    path = f"/v1/model-instances?search={name}&perPage=100&page="
    return [item for page in pages for item in server.call("GET", f"{path}{page}")[1]["items"]]


async def told(server: Daemon, streaming: Daemon, fleet: list[Fake]) -> tuple[float | None, float | None]:
    """Seconds within which 99 of 100 streams have the change of a model that runs on every worker, and the memory of
    the server of those streams meanwhile, in MB."""
    if await placed(server, fleet, "everywhere", len(fleet), 1) is None:
        return None, None
    model = next(item for item in server.call("GET", "/v1/models?search=everywhere")[1]["items"])
    heard: asyncio.Queue[tuple[str, float]] = asyncio.Queue()
    opened = [await stream(address_of(streaming), fake) for fake in fleet]
    listening = [asyncio.create_task(listen(reader, heard)) for reader, _ in opened]
    concerned = len({item["worker_id"] for item in instances(server, "everywhere", len(fleet))})
    waits: list[float] = []
    for number in range(CHANGES):
        await asyncio.sleep(1.0)
        said, began = f"change {number}", time.perf_counter()
        change = {"description": said}
        status, answer = await asyncio.to_thread(server.call, "PUT", f"/v1/models/{model['id']}", change)
        assert status == 200, answer
        for _ in range(concerned):
            word, at = await asyncio.wait_for(heard.get(), GIVEN_UP_AFTER)
            assert word == said, (word, said)
            waits.append(at - began)
        await all_of(fleet, Fake.beat)
    memory = pss(streaming.process.pid) / 1e6
    for task, (_, writer) in zip(listening, opened, strict=True):
        task.cancel()
        writer.close()
    return statistics.quantiles(waits, n=100)[98], memory


async def stream(address: tuple[str, int], fake: Fake) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    """The worker's stream of assignments, its first state read."""
    reader, writer = await asyncio.open_connection(*address, limit=1 << 20)
    writer.write(
        f"GET /v1/workers/{fake.number}/assignments HTTP/1.1\r\nhost: server\r\n"
        f"authorization: Bearer {fake.credential}\r\n\r\n".encode()
    )
    while b'"synced"' not in await reader.readline():
        assert not reader.at_eof()
    return reader, writer


async def listen(reader: asyncio.StreamReader, heard: asyncio.Queue[tuple[str, float]]) -> None:
    """Note each change of the model, and when it came."""
    while line := await reader.readline():
        if line.startswith(b"{") and (at := line.find(b'"change ')) > 0:
            heard.put_nowait((line[at + 1 : line.index(b'"', at + 1)].decode(), time.perf_counter()))


async def anew(server: Daemon, tenth: list[Fake], others: list[Fake]) -> float | None:
    """Seconds from the end of the grace until all that ran on a silent tenth has another place."""
    await all_of(tenth, Fake.beat)
    over, silent = time.monotonic() + GRACE, {fake.number for fake in tenth}
    while (left := over - time.monotonic()) > 0:
        await all_of(others, Fake.beat)
        await asyncio.sleep(min(EVERY / 3, max(left, 0.0)))
    while (past := time.monotonic() - over) < GIVEN_UP_AFTER:
        items = await asyncio.to_thread(instances, server, "early", REPLICAS)
        if len(items) == REPLICAS and all(item["worker_id"] not in {None, *silent} for item in items):
            return past
        await asyncio.sleep(0.1)
    return None


if __name__ == "__main__":
    main()
