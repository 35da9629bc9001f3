"""Routes follow the records; the least busy replica is asked, and the doubtful ones last."""

from __future__ import annotations

import random
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import attrs
import pytest
import trio
import trio.testing

from gpustack.domain.artifact import LoraAdapter, ModelSource, SourceKind
from gpustack.domain.instance import ModelInstance, Placement, Subordinate
from gpustack.domain.lifecycle import InstanceState, Party
from gpustack.domain.model import Model
from gpustack.domain.route import ModelRoute
from gpustack.domain.worker import Condition, Cpu, Worker, WorkerState, WorkerStatus
from gpustack.gateway.endpoints import Endpoints
from gpustack.store import Store
from tests.fresh_store import open_fresh

from .world import LOCAL, NOW, SOURCE, busy


@attrs.define(eq=False)
class Table:
    store: Store
    endpoints: Endpoints

    async def model(
        self, name: str, count: int, *, uuid: str = LOCAL, ports: bool = True
    ) -> list[ModelInstance]:
        def work(tx: Any) -> list[ModelInstance]:
            worker = tx.find(Worker, worker_uuid=uuid) or tx.insert(
                Worker(
                    name=uuid, worker_uuid=uuid, ip="10.0.0.7", condition=Condition(state=WorkerState.READY)
                )
            )
            model = tx.insert(Model(name=name, source=SOURCE, replicas=count))
            made = []
            for number in range(count):
                one = tx.insert(
                    ModelInstance(name=f"{name}-{number}", model_id=model.id, model_name=name, source=SOURCE)
                )
                one = tx.move(
                    one, InstanceState.SCHEDULED, by=Party.SCHEDULER, placement=Placement(worker_id=worker.id)
                )
                port = 40000 + one.id if ports else None
                made.append(tx.move(one, InstanceState.RUNNING, by=Party.WORKER, port=port))
            return made

        return await self.store.write(work)

    async def change(self, cls: type[Any], key: int, **fields: Any) -> None:
        await self.store.write(lambda tx: tx.change(cls, key, **fields))

    async def route(self, name: str, count: int) -> ModelRoute:
        """The route once it has that many endpoints."""
        with trio.fail_after(10):
            while True:
                route = self.endpoints.route(name)
                if route is not None and len(route.endpoints) == count:
                    return route
                await trio.lowlevel.checkpoint()


@pytest.fixture
async def table(tmp_path: Path, nursery: trio.Nursery) -> AsyncIterator[Table]:
    store = await open_fresh(tmp_path, lambda: NOW)
    await nursery.start(store.run)
    endpoints = Endpoints(store, random.Random(3), LOCAL)
    await nursery.start(endpoints.run)
    yield Table(store, endpoints)
    nursery.cancel_scope.cancel()


async def test_only_what_runs_is_asked_and_the_rest_says_why(table: Table) -> None:
    one, two = await table.model("m", 2)
    await table.route("m", 2)
    await table.store.write(
        lambda tx: tx.move(
            tx.get(ModelInstance, one.id), InstanceState.ERROR, by=Party.WORKER, message="exited with 1"
        )
    )
    route = await table.route("m", 1)
    assert [endpoint.instance_id for endpoint in route.endpoints] == [two.id]
    assert route.pending_details == "m-0 is error: exited with 1"
    assert route.pending_reason == "it does not start; its administrators see why"
    await table.change(ModelInstance, two.id, deleted_at=NOW)
    assert (await table.route("m", 0)).endpoints == ()
    await table.store.write(lambda tx: tx.delete(Model, one.model_id))
    with trio.fail_after(10):
        while table.endpoints.route("m") is not None:
            await trio.lowlevel.checkpoint()


async def test_an_adapter_is_asked_of_those_that_have_it_and_explained_where_none_has(table: Table) -> None:
    one, two = await table.model("m", 2)
    await table.change(Model, one.model_id, lora_adapters=(LoraAdapter(name="a", source=SOURCE),))
    route = await table.route("m:a", 0)
    assert "its adapter 'a' is not loaded by any replica" in route.pending_reason
    await table.change(ModelInstance, one.id, state_message="The adapter a cannot be loaded: torn")
    with trio.fail_after(10):
        while (
            "m-0: The adapter a cannot be loaded: torn" not in (await table.route("m:a", 0)).pending_details
        ):
            await trio.lowlevel.checkpoint()
    assert "torn" not in (await table.route("m:a", 0)).pending_reason, "not for every caller"
    await table.change(ModelInstance, two.id, lora_adapters=("a",))
    assert [endpoint.instance_id for endpoint in (await table.route("m:a", 1)).endpoints] == [two.id]
    assert len((await table.route("m", 2)).endpoints) == 2
    for instance in (one, two):
        await table.store.write(
            lambda tx, key=instance.id: tx.move(
                tx.get(ModelInstance, key), InstanceState.ERROR, by=Party.WORKER
            )
        )
    assert (await table.route("m:a", 0)).pending_reason == "it does not start; its administrators see why"


async def test_an_engine_here_is_reached_directly_and_one_elsewhere_through_its_worker(table: Table) -> None:
    await table.model("near", 1)
    await table.model("far", 1, uuid="elsewhere")
    (near,), (far,) = (await table.route("near", 1)).endpoints, (await table.route("far", 1)).endpoints
    assert (near.direct, near.host) == (True, "127.0.0.1")
    assert (far.direct, far.host, far.worker_port) == (False, "10.0.0.7", 10150)
    assert far.engine_port == 40000 + far.instance_id


async def test_the_least_busy_is_asked_and_counts_end_with_their_block(table: Table) -> None:
    await table.model("m", 3)
    route = await table.route("m", 3)
    first, second, third = route.endpoints
    with busy(table.endpoints, first), busy(table.endpoints, first), busy(table.endpoints, second):
        assert table.endpoints.pick(route, ()) is third
        assert table.endpoints.pick(route, {third.instance_id}) is second
        assert table.endpoints.pick(route, {second.instance_id, third.instance_id}) is first
        assert table.endpoints.pick(route, {e.instance_id for e in route.endpoints}) is None
        assert table.endpoints.in_flight == 3
        assert repr(table.endpoints) == "<Endpoints: 1 models, 3 replicas, 3 requests>"
    with pytest.raises(trio.TooSlowError), trio.fail_after(0), busy(table.endpoints, first):
        await trio.sleep_forever()
    assert table.endpoints.in_flight == 0
    assert {table.endpoints.pick(route, ()) for _ in range(50)} == set(route.endpoints)


async def test_a_replica_that_failed_is_asked_last_for_a_while(
    table: Table, mock_clock: trio.testing.MockClock
) -> None:
    await table.model("m", 2)
    route = await table.route("m", 2)
    bad, good = route.endpoints
    assert table.endpoints.suspect(bad) is True
    assert table.endpoints.suspect(bad) is False, "known already"
    assert {table.endpoints.pick(route, ()) for _ in range(50)} == {good}
    assert table.endpoints.pick(route, {good.instance_id}) is bad
    with busy(table.endpoints, good):
        assert table.endpoints.pick(route, ()) is good, "busy is better than broken"
    mock_clock.jump(6)
    assert {table.endpoints.pick(route, ()) for _ in range(50)} == {bad, good}
    assert table.endpoints.suspect(bad) is True


async def test_a_replica_whose_worker_went_quiet_is_asked_last(table: Table) -> None:
    (far,) = await table.model("m", 1, uuid="elsewhere")
    worker = table.store.snapshot.workers[far.worker_id or 0]
    (endpoint,) = (await table.route("m", 1)).endpoints
    assert not endpoint.quiet
    for state in (WorkerState.NOT_READY, WorkerState.UNREACHABLE):
        await table.change(Worker, worker.id, condition=Condition(state=state))
        with trio.fail_after(10):
            while not (route := await table.route("m", 1)).endpoints[0].quiet:
                await trio.lowlevel.checkpoint()
        assert table.endpoints.pick(route, ()) is route.endpoints[0], "there is no other"
    near = attrs.evolve(endpoint, instance_id=999, quiet=False)
    both = attrs.evolve(route, endpoints=(*route.endpoints, near))
    with busy(table.endpoints, near):
        assert {table.endpoints.pick(both, ()) for _ in range(20)} == {near}


async def test_a_replica_of_which_a_part_went_quiet_is_asked_last_even_when_its_head_is_here(
    table: Table,
) -> None:
    (near,) = await table.model("m", 1)
    (far,) = await table.model("other", 1, uuid="elsewhere")
    other = table.store.snapshot.workers[far.worker_id or 0]
    placement = Placement(worker_id=near.worker_id or 0, subordinates=(Subordinate(worker_id=other.id),))
    await table.change(ModelInstance, near.id, placement=placement)
    (endpoint,) = (await table.route("m", 1)).endpoints
    assert endpoint.direct and not endpoint.quiet
    await table.change(Worker, other.id, condition=Condition(state=WorkerState.NOT_READY))
    with trio.fail_after(10):
        while not (await table.route("m", 1)).endpoints[0].quiet:
            await trio.lowlevel.checkpoint()


async def test_an_unreachable_replica_is_asked_when_no_other_is_left_and_the_route_names_its_worker(
    table: Table,
) -> None:
    (far,) = await table.model("m", 1, uuid="elsewhere")
    await table.route("m", 1)
    silence = "Worker elsewhere has not been heard since 2026-01-02 03:04:05 UTC"
    await table.store.write(
        lambda tx: tx.move(
            tx.get(ModelInstance, far.id), InstanceState.UNREACHABLE, by=Party.LIVENESS, message=silence
        )
    )
    with trio.fail_after(10):
        while not (route := await table.route("m", 1)).silence:
            await trio.lowlevel.checkpoint()
    (silent,) = route.endpoints
    assert (silent.quiet, route.silence) == (True, silence), "whatever is said of its worker by now"
    failed = attrs.evolve(silent, instance_id=999, quiet=False)
    both = attrs.evolve(route, endpoints=(silent, failed))
    table.endpoints.suspect(failed)
    with busy(table.endpoints, failed):
        assert table.endpoints.pick(both, ()) is failed, "who has just failed is likelier to answer"
    assert table.endpoints.pick(both, {999}) is silent
    assert table.endpoints.pick(both, {999, silent.instance_id}) is None


async def test_what_workers_tell_of_their_load_makes_no_routes_anew(table: Table) -> None:
    (one,) = await table.model("m", 1)
    before = await table.route("m", 1)
    for load in range(3):
        await table.change(
            Worker, one.worker_id or 0, status=WorkerStatus(cpu=Cpu(utilization_rate=float(load)))
        )
    await trio.testing.wait_all_tasks_blocked()
    assert table.endpoints.route("m") is before
    await table.change(Worker, one.worker_id or 0, ip="10.0.0.8")
    await trio.testing.wait_all_tasks_blocked()
    assert table.endpoints.route("m") is not before
    assert table.store.snapshot.workers[one.worker_id or 0].status.cpu.utilization_rate == 2.0


async def test_the_context_is_known_once_a_worker_has_the_files(table: Table) -> None:
    """Before that nobody knows what is in the repository, and so not which engine runs it."""
    (one,) = await table.model("m", 1)
    repository = ModelSource(kind=SourceKind.HUGGING_FACE, huggingface_repo_id="org/model")
    await table.change(Model, one.model_id, source=repository)
    with trio.fail_after(10):
        while (await table.route("m", 1)).context is not None:
            await trio.lowlevel.checkpoint()
    await table.change(ModelInstance, one.id, resolved_path="/cache/org/model")
    with trio.fail_after(10):
        while (await table.route("m", 1)).context is None:
            await trio.lowlevel.checkpoint()
    assert (await table.route("m", 1)).context == 8192
