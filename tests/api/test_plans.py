"""Plans over HTTP: what would come of it, and carried out only while it holds."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import attrs
import pytest
import trio

from gpustack.api.deployment import source_from
from gpustack.domain.artifact import FileState, ModelFile
from gpustack.domain.device import Device, DeviceMemory
from gpustack.domain.lifecycle import InstanceState, Party
from gpustack.domain.model import Model
from gpustack.domain.unit import GIB
from gpustack.domain.worker import Worker
from gpustack.server.facts import FactsCache
from gpustack.server.survival import SurvivalWatch
from tests.policy import worlds

from .test_model_evaluations import LARGE, SMALL, read_here, read_there
from .world import World

SMALL_ONE = {"kind": "Model", "name": "small", "categories": ["llm"], **SMALL}
LARGE_ONE = {"kind": "Model", "name": "large", "categories": ["llm"], "cpu_offloading": False, **LARGE}
CARD = Device(
    index=0,
    name="NVIDIA GeForce RTX 4090",
    vendor="NVIDIA",
    type="cuda",
    memory=DeviceMemory(total=24 * GIB),
    compute_capability="8.9",
)


@pytest.fixture
async def planning(world: World) -> AsyncIterator[World]:
    facts = FactsCache(read_here, read_there, lambda: world.store.snapshot)
    async with trio.open_nursery() as nursery:
        await nursery.start(lambda task_status: facts.run(task_status=task_status))
        yield world.rebuilt(facts=facts)
        nursery.cancel_scope.cancel()


async def node(world: World, name: str, *cards: Device, **more: Any) -> Worker:
    status = worlds.worker(gpus=cards).status
    return (await world.worker(name, status=status, system_reserved=worlds.RESERVED, **more))[0]


async def planned(world: World, *documents: Any, **question: Any) -> dict[str, Any]:
    body = {"documents": documents, **question}
    before = world.store.snapshot.tables
    answer = await world.ask("POST", "/v1/plans", world.admin, json=body)
    assert answer.status_code == 200, answer.text
    assert world.store.snapshot.tables == before, "a plan changes nothing"
    found: dict[str, Any] = answer.json()
    return found


async def carried_out(world: World, plan: dict[str, Any], *documents: Any, **more: Any) -> Any:
    body = {"documents": documents, "rests_on": plan["rests_on"], "decisions": plan["decisions"], **more}
    return await world.ask("POST", "/v1/plans/apply", world.admin, json=body)


async def running(world: World, name: str, on: Worker, document: dict[str, Any] = SMALL_ONE) -> None:
    """A model with one replica that runs there."""
    answer = await world.ask(
        "POST", "/v1/manifests", world.admin, json={"documents": [{**document, "name": name}]}
    )
    assert answer.status_code == 200, answer.text
    model = world.store.snapshot.find(Model, name=name)
    assert model is not None
    made = await world.instance(model, f"{name}-0", on)

    def run(tx: Any) -> None:
        now = tx.get(type(made), made.id)
        for state in (InstanceState.INITIALIZING, InstanceState.STARTING, InstanceState.RUNNING):
            now = tx.move(now, state, by=Party.WORKER)

    await world.store.write(run)


async def test_a_deployment_is_placed_without_being_made(planning: World) -> None:
    await node(planning, "a", CARD)
    plan = await planned(planning, {**SMALL_ONE, "replicas": 2}, LARGE_ONE)
    assert [(one["name"], one["change"]) for one in plan["changes"]] == [
        ("small", "created"),
        ("large", "created"),
    ]
    assert [(one["model"], one.get("instance"), one["worker"]) for one in plan["placements"]] == [
        ("small", None, "a"),
        ("small", None, "a"),
    ]
    (first, _) = plan["placements"]
    assert "worker a, GPU 0" in first["place"] and first["vram"] > 0
    assert [one["worker"] for one in first["fetches"]] == ["a"] and "seconds" not in first["fetches"][0]
    (waits,) = plan["waits"]
    assert waits["model"] == "large" and not waits["stopped"] and "memory" in waits["why"]
    assert plan["models"] == [
        {"model": "large", "wanted": 1, "now": 0, "then": 0},
        {"model": "small", "wanted": 2, "now": 0, "then": 2},
    ]


async def test_who_asks_is_told_what_would_help_what_waits(planning: World) -> None:
    one = await node(planning, "a", CARD, cordoned=True)
    whole = {**SMALL_ONE, "replicas": 2}
    assert all(wait["changes"] == [] for wait in (await planned(planning, whole))["waits"])
    plan = await planned(planning, whole, remedies=True)
    first, second = plan["waits"]
    assert second["changes"] == [], "what helps the first is told once"
    uncordon = next(change for change in first["changes"] if change["kind"] == "uncordon")
    assert uncordon["by_api"]
    assert [(c["of"], c["id"], c["field"], c["value"]) for c in uncordon["changes"]] == [
        ("worker", one.id, "cordoned", False)
    ]
    assert plan["decisions"] == (await planned(planning, whole))["decisions"]


async def test_a_place_says_how_its_memory_comes_about(planning: World) -> None:
    await node(planning, "a", CARD)
    (placed,) = (await planned(planning, SMALL_ONE))["placements"]
    assert any(sentence.startswith("Video memory for the weights: ") for sentence in placed["memory"])


async def test_a_worker_more_is_one_of_its_kind(planning: World) -> None:
    await node(planning, "a", CARD)
    without = await planned(planning, LARGE_ONE)
    assert without["waits"] and not without["placements"]
    plan = await planned(planning, LARGE_ONE, add_workers=["4xRTX4090"])
    (place,) = plan["placements"]
    assert place["worker"] == "new-4xrtx4090" and len(place["gpu_indexes"]) >= 2
    assert any("engines and labels are those of a" in remark for remark in plan["remarks"])
    by_size = await planned(planning, LARGE_ONE, add_workers=["4x24GiB+64GiB"])
    assert by_size["placements"][0]["worker"] == "new-4x24gib"
    for wrong, said in (("4xRTX4900", "did you mean"), ("many", "COUNTxKIND"), ("1x24GiB+much", "no size")):
        answer = await planning.ask("POST", "/v1/plans", planning.admin, json={"add_workers": [wrong]})
        assert answer.status_code == 400 and said in answer.json()["message"]


async def test_a_worker_that_is_lost_or_drained_gives_its_instances_to_others_or_not(planning: World) -> None:
    first, second = await node(planning, "a", CARD), await node(planning, "b", CARD)
    await running(planning, "one", first)
    await running(planning, "pinned", first, {**SMALL_ONE, "worker_selector": {"zone": "x"}})
    await planning.store.write(lambda tx: tx.change(Worker, first.id, labels={"zone": "x"}))
    await running(planning, "other", second)
    lost = await planned(planning, lose_workers=["a"])
    (moved,) = lost["placements"]
    assert (moved["instance"], moved["worker"]) == ("one-0", "b") and "worker a" in moved["came_from"]
    (stopped,) = lost["waits"]
    assert (stopped["instance"], stopped["stopped"]) == ("pinned-0", True) and "worker a" in stopped["place"]
    assert lost["models"] == [{"model": "pinned", "wanted": 1, "now": 1, "then": 0}]
    drained = await planned(planning, drain_workers=["a"])
    assert [(one["model"], one.get("instance"), one["worker"]) for one in drained["placements"]] == [
        ("one", None, "b")
    ]
    (end,) = drained["ends"]
    assert end["instance"] == "one-0" and "which is drained" in end["why"]
    assert [one["model"] for one in drained["waits"]] == ["pinned"]
    assert drained["models"] == [], "what finds no other place goes on there"
    answer = await planning.ask("POST", "/v1/plans", planning.admin, json={"lose_workers": ["a", "x", "y"]})
    assert answer.status_code == 404 and "'x', 'y'" in answer.json()["message"]


async def test_files_that_are_there_are_not_fetched_and_the_time_of_others_is_told_where_known(
    planning: World,
) -> None:
    first, second = await node(planning, "a", CARD), await node(planning, "b", CARD)
    small = source_from(SMALL)
    for worker, fields in (
        (first, {"state": FileState.READY, "size": 1000}),
        (
            second,
            {
                "state": FileState.DOWNLOADING,
                "size": 1000,
                "download_progress": 25.0,
                "download_speed": 100.0,
            },
        ),
    ):
        file = ModelFile(worker_id=worker.id, source=small, source_index=small.index, **fields)
        await planning.store.write(lambda tx, file=file: tx.insert(file))
    plan = await planned(planning, {**SMALL_ONE, "replicas": 2})
    found = {one["worker"]: one["fetches"] for one in plan["placements"]}
    assert found["a"] == [] and found["b"][0]["seconds"] == 7.5


async def test_a_plan_is_carried_out_as_long_as_it_holds_and_else_refused_with_what_changed(
    planning: World,
) -> None:
    first, second = await node(planning, "a", CARD), await node(planning, "b", CARD)
    await running(planning, "one", first)
    documents = [{**SMALL_ONE, "replicas": 2}]
    plan = await planned(planning, *documents, drain_workers=["a"])
    # What workers measure all the time is not what it rests on.
    busy = attrs.evolve(first.status, memory=attrs.evolve(first.status.memory, used=33 * GIB))
    await planning.store.write(lambda tx: tx.change(Worker, first.id, status=busy))
    await planning.store.write(lambda tx: tx.change(Worker, second.id, cordoned=True))
    answer = await carried_out(planning, plan, *documents, drain_workers=["a"])
    assert answer.status_code == 409 and "worker b (changed)" in answer.json()["message"]
    assert "worker a" not in answer.json()["message"]
    assert planning.store.snapshot.find(Model, name="small") is None
    await planning.store.write(lambda tx: tx.change(Worker, second.id, cordoned=False))
    await running(planning, "new", second)
    answer = await carried_out(planning, plan, *documents, drain_workers=["a"])
    assert "model new (is new)" in answer.json()["message"]
    assert "what runs on b (is new)" in answer.json()["message"]
    plan = await planned(planning, *documents, drain_workers=["a"])
    other = await carried_out(planning, plan, {**SMALL_ONE, "replicas": 3}, drain_workers=["a"])
    assert other.status_code == 409 and "not what was planned" in other.json()["message"]
    answer = await carried_out(planning, plan, *documents, drain_workers=["a"])
    assert answer.status_code == 200, answer.text
    assert answer.json()["placements"] == plan["placements"]
    model = planning.store.snapshot.find(Model, name="small")
    assert model is not None and model.replicas == 2
    drained = planning.store.snapshot.workers[first.id]
    assert (drained.cordoned, drained.draining) == (True, True)
    events = (await planning.get("/v1/audit-events?perPage=100"))["items"]
    done = {one["action"] for one in events if one["outcome"] == "done"}
    assert {"plan.apply", "model.create"} <= done
    told = [(one["target_name"], one["details"]) for one in events if one["action"] == "worker.update"]
    assert told == [("a", {"fields": {"draining": True}})], "the trail of the worker tells who drained it"


async def test_faults_of_manifests_are_told_as_when_they_are_applied(planning: World) -> None:
    answer = await planning.ask(
        "POST", "/v1/plans", planning.admin, json={"documents": [{**SMALL_ONE, "replicsa": 1}]}
    )
    assert answer.status_code == 422 and answer.json()["faults"][0]["field"] == "replicsa"
    gone = {"kind": "Model", "name": "gone", **SMALL, "huggingface_repo_id": "me/gone"}
    (waits,) = (await planned(planning, gone))["waits"]
    assert "me/gone does not exist" in waits["why"]
    ann = await planning.user("ann")
    assert (await planning.ask("POST", "/v1/plans", ann, json={})).status_code == 403
    assert (await planning.ask("POST", "/v1/plans/apply", ann, json={})).status_code == 403


async def test_what_the_loss_of_each_worker_would_do_is_told_once_it_is_known(planning: World) -> None:
    worker = await node(planning, "a", CARD)
    await running(planning, "one", worker)
    facts = planning.context.models.facts
    assert facts is not None
    watch = SurvivalWatch(planning.store, facts, planning.clock, every=0.01)
    watching = planning.rebuilt(survival=watch)
    assert await watching.get("/v1/survival") == {"at": None, "losses": []}
    async with trio.open_nursery() as nursery:
        await nursery.start(lambda task_status: watch.run(task_status=task_status))
        revision = watch.found.revision
        with trio.fail_after(30):
            while watch.report is None or watch.report.losses[worker.id].unknown:
                revision, _ = await watch.found.changed(revision)
        nursery.cancel_scope.cancel()
    (loss,) = (await watching.get("/v1/survival"))["losses"]
    assert (loss["worker"], loss["shrinks"], loss["keeps"]) == ("a", [], [])
    assert [(one["model"], one["lost"], one["left"]) for one in loss["stops"]] == [("one", 1, 0)]
    ann = await watching.user("ann")
    assert (await watching.ask("GET", "/v1/survival", ann)).status_code == 403
