"""The actions that are offered, sent as they are, end what they are offered for: beside the real scheduler."""

from __future__ import annotations

import random
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import attrs
import pytest
import trio

from gpustack.api import attention_board
from gpustack.domain.access import ApiKey, Limits
from gpustack.domain.artifact import FileState, ModelFile, ModelSource, SourceKind
from gpustack.domain.instance import ModelInstance
from gpustack.domain.lifecycle import InstanceState, Party
from gpustack.domain.model import Model
from gpustack.domain.unit import GIB
from gpustack.domain.usage import BudgetDraw
from gpustack.domain.worker import Condition, EngineBuild, Filesystem, ModelDisk, Worker, WorkerState
from gpustack.policy.attention import kinds
from gpustack.policy.survival import ModelLoss, WorkerLoss
from gpustack.server.facts import FactsCache, FactsSettings
from gpustack.server.reconciler import ReplicaReconciler
from gpustack.server.scheduler import Scheduler
from gpustack.server.survival import SurvivalReport, SurvivalWatch
from gpustack.store.transaction import Tx

from .world import CARD, STATUS, World

MACHINE = attrs.evolve(STATUS, engines=(EngineBuild(engine="custom", drives=("cuda",)),))
FETCHED = ModelSource(kind=SourceKind.HUGGING_FACE, huggingface_repo_id="me/tiny")
CUSTOM = {"backend": "custom", "command": "serve --port {port}"}
GONE_WITHOUT = {"server"}
"""Of these nothing is offered: what ends them is done elsewhere."""


async def troubles(world: World) -> dict[str, dict[str, Any]]:
    return {one["id"]: one for one in (await world.get("/v1/attention"))["items"]}


async def mend(world: World, wanted: str, choose: str = "") -> None:
    """Wait until there is that trouble, send its first action (or the one whose label has ``choose``), and wait until
    it is gone."""
    found = await until(world, lambda found: wanted in found)
    actions = {one["label"]: one for one in found[wanted]["actions"]}
    (label,) = [label for label in actions if choose in label][:1] or [str(found[wanted])]
    action = actions[label]
    answer = await world.ask(action["method"], action["path"], world.admin, json=action["body"])
    assert answer.status_code == 200, answer.text
    await until(world, lambda found: wanted not in found)


async def until(
    world: World, holds: Callable[[dict[str, dict[str, Any]]], bool]
) -> dict[str, dict[str, Any]]:
    """Ask after each commit, until what is told is so."""
    with world.store.watch() as wake, trio.fail_after(30):
        while not holds(found := await troubles(world)):
            await wake.wait()
    return found


async def test_the_actions_offered_end_the_troubles(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(attention_board, "PAUSE", 0.0)
    facts = FactsCache(_never, _never, lambda: world.store.snapshot, FactsSettings(), world.clock.monotonic)
    survival = SurvivalWatch(world.store, facts, world.clock)
    world = world.rebuilt(facts=facts, survival=survival)
    store = world.store
    worker, _ = await world.worker("node", cordoned=True, status=MACHINE)
    other, _ = await world.worker("other", cordoned=True, status=MACHINE)
    mended: set[str] = set()
    async with trio.open_nursery() as nursery:
        await nursery.start(lambda task_status: Scheduler(store, facts).run(task_status=task_status))
        await nursery.start(
            lambda task_status: ReplicaReconciler(store, random.Random(1)).run(task_status=task_status)
        )
        model = await world.model("waits", **CUSTOM)
        await mend(world, f"waiting:model:{model.id}", "ncordon")
        assert [one.state for one in store.snapshot.instances.values()] == [InstanceState.SCHEDULED]
        mended.add("waiting")

        (instance,) = store.snapshot.instances.values()
        await store.write(
            lambda tx: tx.move(instance, InstanceState.ERROR, by=Party.WORKER, message="it ends")
        )
        # its engine is ended by its worker, which is not there: here its place is given up at once
        await store.write(lambda tx: tx.change(Worker, worker.id, leaving=True))
        await mend(world, f"failing:model:{model.id}", "Replace")
        await mend_model(world, model)
        mended.add("failing")
        nursery.cancel_scope.cancel()

    await store.write(lambda tx: tx.change(Worker, worker.id, leaving=False, draining=True, cordoned=True))
    stuck = await world.model("stuck", replicas=0)
    there = await world.instance(stuck, "stuck-0", worker)
    waiting = await world.instance(stuck, "stuck-1")
    await store.write(lambda tx: tx.change(ModelInstance, waiting.id, state_message="no room"))
    await mend(world, f"drain:worker:{worker.id}")
    mended.add("drain")
    for one in (there, waiting):
        await world.ask("DELETE", f"/v1/model-instances/{one.id}", world.admin)

    broken = attrs.evolve(MACHINE, gpu_devices=(attrs.evolve(CARD, fault="fell off the bus"),))
    await store.write(lambda tx: tx.change(Worker, worker.id, status=broken))
    await mend(world, f"hardware:worker:{worker.id}")
    mended.add("hardware")

    silent = Condition(state=WorkerState.UNREACHABLE, since=world.clock.now, why="not heard")
    await store.write(lambda tx: tx.change(Worker, other.id, condition=silent))
    await mend(world, f"silent:worker:{other.id}")
    assert other.id not in store.snapshot.workers
    mended.add("silent")

    user = await world.user("ci")
    key = next(one for one in store.snapshot.api_keys.values() if one.user_id == user.id)
    await store.write(
        lambda tx: tx.change(ApiKey, key.id, limits=Limits(tokens_per_day=10, concurrent_requests=2))
    )
    await store.write(
        lambda tx: tx.insert(BudgetDraw(subject=f"key:{key.id}", period="2026-01-02", drawn=10))
    )
    await mend(world, f"budget:key:{key.id}:day")
    assert store.snapshot.api_keys[key.id].limits == Limits(tokens_per_day=20, concurrent_requests=2)
    mended.add("budget")

    file = await store.write(
        lambda tx: tx.insert(
            ModelFile(worker_id=worker.id, source=FETCHED, source_index=FETCHED.index, state=FileState.ERROR)
        )
    )
    await mend(world, f"files:source:{FETCHED.index[:16]}")
    assert store.snapshot.files[file.id].state is FileState.DOWNLOADING
    mended.add("files")

    spare, _ = await world.worker("spare", status=MACHINE)
    found = SurvivalReport(
        at=world.clock.now,
        losses={
            worker.id: WorkerLoss(
                worker_id=worker.id,
                worker="node",
                stops=(ModelLoss(model_id=model.id, model="waits", lost=1, left=0),),
            )
        },
    )
    await store.write(lambda tx: tx.change(Model, model.id, replicas=1))
    await world.instance(model, "waits-1", worker)
    survival.found.set(found)
    trouble = (await troubles(world))[f"fragile:model:{model.id}"]
    await world.ask("PUT", trouble["actions"][0]["path"], world.admin, json=trouble["actions"][0]["body"])
    assert store.snapshot.models[model.id].replicas == 2
    survival.found.set(None)
    mended.add("fragile")

    await store.write(lambda tx: tx.change(ModelFile, file.id, state=FileState.READY, size=60 * GIB))
    full = attrs.evolve(
        MACHINE,
        filesystem=(Filesystem(name="data", mount_point="/data", total=1000 * GIB, available=GIB),),
        model_disk=ModelDisk(mount_point="/data"),
    )
    await store.write(lambda tx: tx.change(Worker, worker.id, status=full))
    trouble = (await troubles(world))[f"disk:worker:{worker.id}"]
    (action,) = trouble["actions"]
    evicted = await world.ask(action["method"], action["path"], world.admin, json=action["body"])
    assert evicted.json()["freed"] == 60 * GIB, "its worker removes it, and then has the room"
    mended.add("disk")
    assert {kind.KIND for kind in kinds()} == mended | GONE_WITHOUT
    assert spare.id in store.snapshot.workers


async def mend_model(world: World, model: Model) -> None:
    await world.ask("PUT", f"/v1/models/{model.id}", world.admin, json={"replicas": 0})
    await until(world, lambda found: not world.store.snapshot.instances_of(model.id))


async def _never(*args: Any) -> Any:
    await trio.sleep_forever()


async def test_what_passes_with_time_is_not_told_longer(world: World) -> None:
    worker, _ = await world.worker("node")
    model = await world.model("slow")
    instance = await world.instance(model, "slow-0", worker)
    now = world.clock.now

    def started_again(tx: Tx) -> None:
        for state in (InstanceState.INITIALIZING, InstanceState.STARTING):
            tx.move(tx.get(ModelInstance, instance.id), state, by=Party.WORKER)
        tx.change(ModelInstance, instance.id, restart_count=1, last_restart_time=now)

    await world.store.write(started_again)
    assert f"failing:model:{model.id}" in await troubles(world)
    world.clock.now = now + timedelta(minutes=11)
    assert f"failing:model:{model.id}" not in await troubles(world)


async def test_only_administrators_are_told(world: World) -> None:
    user = await world.user("somebody")
    assert (await world.ask("GET", "/v1/attention", user)).status_code == 403
