"""LoRA adapters come to a running engine and leave it, with a process that stands for vLLM's."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Iterable
from pathlib import Path

import attrs
import pytest
import trio

from gpustack.domain.artifact import LoraAdapter, ModelSource, SourceKind
from gpustack.domain.instance import ModelInstance, Placement, Subordinate
from gpustack.domain.lifecycle import InstanceState as S
from gpustack.domain.model import Model
from gpustack.domain.worker import EngineBuild, WorkerStatus
from gpustack.nursery.wake import AsyncValue
from gpustack.worker import adapters
from tests.nursery.programs import is_running
from tests.worker.conftest import Start
from tests.worker.daemon import Daemon, instance_of
from tests.worker.server import FakeServer
from tests.worker.test_vllm_gang import build, model

__all__ = ["build"]


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(adapters, "_UNROUTED_WITHIN", 0.05)


def adapter(folder: Path, name: str, *, rank: int | None = 8, at: str = "") -> LoraAdapter:
    """One in a folder of its own; without a rank its files are missing."""
    path = folder / "loras" / (at or name)
    path.mkdir(parents=True, exist_ok=True)
    if rank is not None:
        (path / "adapter_config.json").write_text(json.dumps({"r": rank}))
    return LoraAdapter(name=name, source=ModelSource(kind=SourceKind.LOCAL_PATH, local_path=str(path)))


def named(folder: Path, *parts: LoraAdapter, **env: str) -> Model:
    return attrs.evolve(model(folder, **env), lora_adapters=parts)


async def started(server: FakeServer, start: Start, of: Model, build: EngineBuild) -> Daemon:
    """A worker whose engine runs; the record of the instance as the server makes it."""
    server.put(of)
    server.put(instance_of(of, lora_adapters=tuple(one.name for one in of.lora_adapters)))
    worker = await start(status=WorkerStatus(engines=(build,)))
    await server.until_state(S.RUNNING)
    return worker


def name(server: FakeServer, *parts: LoraAdapter, **fields: object) -> None:
    """A user edits the deployment."""
    server.put(attrs.evolve(server.assigned.models[1], lora_adapters=parts, **fields))  # type: ignore[arg-type]


async def until_has(server: FakeServer, *names: str) -> ModelInstance:
    """The record, once it shows these adapters."""
    await server.until(lambda: server.instance().lora_adapters == names)
    return server.instance()


async def listed(worker: Daemon, server: FakeServer) -> dict[str, str]:
    """What the engine itself says."""
    status, answer = await worker.through(server.instance().port or 0)
    assert status == 200
    return {one["id"]: one["root"] for one in json.loads(answer)["data"] if one["parent"]}


def path_of(one: LoraAdapter) -> str:
    return str(one.source.local_path)


async def test_adapters_come_and_go_while_the_engine_runs(
    server: FakeServer, start: Start, tmp_path: Path, build: EngineBuild
) -> None:
    a, b = adapter(tmp_path, "a"), adapter(tmp_path, "b", rank=16)
    worker = await started(server, start, named(tmp_path, a), build)
    before = await until_has(server, "a")
    assert await listed(worker, server) == {"m:a": path_of(a)}
    name(server, b, a)
    await until_has(server, "b", "a")
    assert await listed(worker, server) == {"m:a": path_of(a), "m:b": path_of(b)}
    name(server, b)
    now = await until_has(server, "b")
    assert await listed(worker, server) == {"m:b": path_of(b)}
    name(server)
    await until_has(server)
    assert await listed(worker, server) == {}
    assert (now.pid, now.state, now.state_message) == (before.pid, S.RUNNING, "")
    assert server.states()[-1] is S.RUNNING and not server.refused


async def test_one_whose_files_are_others_now_is_loaded_anew_and_not_asked_for_meanwhile(
    server: FakeServer, start: Start, tmp_path: Path, build: EngineBuild
) -> None:
    a, b = adapter(tmp_path, "a"), adapter(tmp_path, "b")
    worker = await started(server, start, named(tmp_path, a, b), build)
    await until_has(server, "a", "b")
    told = len(server.reports)
    other = adapter(tmp_path, "a", at="a2")
    name(server, other, b)
    await server.until(lambda: [r.lora_adapters for _, r in server.reports[told:]] == [("b",), ("a", "b")])
    assert await listed(worker, server) == {"m:a": path_of(other), "m:b": path_of(b)}


async def test_one_that_cannot_be_loaded_is_explained_and_keeps_nothing_from_going_on(
    server: FakeServer, start: Start, tmp_path: Path, build: EngineBuild, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(adapters, "_FIRST_PAUSE", 0.1)
    a, b = adapter(tmp_path, "a"), adapter(tmp_path, "b")
    missing = adapter(tmp_path, "missing", rank=None)
    worker = await started(server, start, named(tmp_path, a), build)
    pid = server.instance().pid
    name(server, missing, a, b)
    record = await until_has(server, "a", "b")
    await server.until(lambda: "missing" in server.instance().state_message)
    message = server.instance().state_message
    assert message.startswith("The adapter missing cannot be loaded: The folder ")
    assert message.endswith("/missing has no files")
    assert (record.state, record.pid) == (S.RUNNING, pid)
    adapter(tmp_path, "missing")  # somebody puts the files there: it is tried again by itself
    record = await until_has(server, "missing", "a", "b")
    assert record.state_message == ""
    assert len(await listed(worker, server)) == 3


async def test_one_of_a_larger_rank_than_there_is_room_for_has_the_replicas_replaced(
    server: FakeServer, start: Start, tmp_path: Path, build: EngineBuild
) -> None:
    a, large = adapter(tmp_path, "a"), adapter(tmp_path, "large", rank=64)
    await started(server, start, named(tmp_path, a), build)
    name(server, a, large)
    await server.until(lambda: "The replicas are replaced" in server.instance().state_message)
    assert "LoRA rank 64 is greater than max_lora_rank 16" in server.instance().state_message
    assert [report.outgrown for _, report in server.reports].count(True) == 1
    assert server.instance().lora_adapters == ("a",) and server.instance().state is S.RUNNING


async def test_a_rank_that_a_user_bounded_is_theirs_to_change(
    server: FakeServer, start: Start, tmp_path: Path, build: EngineBuild
) -> None:
    a, large = adapter(tmp_path, "a"), adapter(tmp_path, "large", rank=64)
    bounded = attrs.evolve(named(tmp_path, a), backend_parameters=("--max-lora-rank", "32"))
    await started(server, start, bounded, build)
    name(server, a, large)
    await server.until(lambda: "max_lora_rank 32" in server.instance().state_message)
    assert not any(report.outgrown for _, report in server.reports)


async def test_an_engine_starts_again_with_what_it_had_and_what_it_refused_comes_later(
    server: FakeServer, start: Start, tmp_path: Path, build: EngineBuild
) -> None:
    """An adapter that cannot be loaded while it runs must not keep it from starting for ever."""
    a, b, missing = adapter(tmp_path, "a"), adapter(tmp_path, "b"), adapter(tmp_path, "missing", rank=None)
    worker = await started(server, start, named(tmp_path, a), build)
    name(server, a, missing, b)
    before = await until_has(server, "a", "b")
    await server.until(lambda: "missing" in server.instance().state_message)
    os.kill(before.pid or 0, signal.SIGKILL)
    await server.until(lambda: server.instance().state is S.RUNNING and server.instance().pid != before.pid)
    await server.until(lambda: "missing" in server.instance().state_message)
    assert server.instance().lora_adapters == ("a", "b")
    assert set(await listed(worker, server)) == {"m:a", "m:b"}


async def test_the_next_daemon_asks_the_engine_what_it_has(
    server: FakeServer, start: Start, start_next: Start, tmp_path: Path, build: EngineBuild
) -> None:
    a, b, c = (adapter(tmp_path, one) for one in "abc")
    worker = await started(server, start, named(tmp_path, a, b), build)
    before = await until_has(server, "a", "b")
    await worker.crash()
    name(server, b, c)
    server.change(lora_adapters=("lost",))  # as if reports had not arrived
    worker = await start_next(status=WorkerStatus(engines=(build,)))
    record = await until_has(server, "b", "c")
    assert record.pid == before.pid
    assert set(await listed(worker, server)) == {"m:b", "m:c"}


async def test_a_record_that_shows_others_is_put_right(
    server: FakeServer, start: Start, tmp_path: Path, build: EngineBuild, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(adapters, "_LOOK_EVERY", 0.1)
    await started(server, start, named(tmp_path, adapter(tmp_path, "a")), build)
    await until_has(server, "a")
    counts = []
    for _ in range(3):
        server.change(lora_adapters=())
        await until_has(server, "a")
        counts.append(len(server.file_reports))
    assert counts[0] == counts[-1], "its files are not asked for again"


async def test_a_request_under_way_outlives_its_adapter(
    server: FakeServer, start: Start, tmp_path: Path, build: EngineBuild, nursery: trio.Nursery
) -> None:
    a, until = adapter(tmp_path, "a"), tmp_path / "go"
    worker = await started(server, start, named(tmp_path, a), build)
    port, answered = server.instance().port or 0, AsyncValue(0)

    async def ask() -> None:
        status, _ = await worker.through(port, "/slow", method="POST", body=b"{}", x_until=str(until))
        answered.set(status)

    nursery.start_soon(ask)
    name(server)
    await until_has(server)
    assert await listed(worker, server) == {} and not answered.value
    until.touch()
    with trio.fail_after(30):
        assert await answered.changed(0) == (1, 200)


async def test_a_replica_of_a_former_generation_keeps_its_adapters_until_it_ends(
    server: FakeServer, start: Start, tmp_path: Path, build: EngineBuild
) -> None:
    a, b = adapter(tmp_path, "a"), adapter(tmp_path, "b")
    worker = await started(server, start, named(tmp_path, a), build)
    await until_has(server, "a")
    name(server, b, generation=2)
    server.put(attrs.evolve(instance_of(server.assigned.models[1]), id=2, name="m-2", generation=2,
                            lora_adapters=("b",)))  # fmt: skip
    await server.until_state(S.RUNNING, 2)
    assert set(await listed(worker, server)) == {"m:a"}
    assert server.instance().lora_adapters == ("a",) and server.instance(2).lora_adapters == ("b",)


async def test_a_gang_tells_what_it_started_with_and_follows_nothing(
    server: FakeServer, start: Start, tmp_path: Path, build: EngineBuild, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The files of another adapter would have to be on each of its workers."""
    monkeypatch.setattr(adapters, "_LOOK_EVERY", 0.1)
    a, b = adapter(tmp_path, "a"), adapter(tmp_path, "b")
    of = named(tmp_path, a)
    server.put(of)
    placement = Placement(worker_id=1, subordinates=(Subordinate(worker_id=1),))
    server.put(instance_of(of, placement=placement))
    worker = await start(status=WorkerStatus(engines=(build,)))
    record = await until_has(server, "a")
    name(server, a, b)
    server.change(lora_adapters=())
    await until_has(server, "a")
    assert set(await listed(worker, server)) == {"m:a"} and is_running(record.pid or 0)


def test_names_are_told_in_the_order_of_the_deployment(tmp_path: Path) -> None:
    parts: Iterable[LoraAdapter] = [adapter(tmp_path, one) for one in "cab"]
    loaded = {"m:a": "/a", "m:b": "/b", "m:x": "/x"}
    assert adapters._in_order(named(tmp_path, *parts), loaded) == ("a", "b")
