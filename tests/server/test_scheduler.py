"""Pending instances find a place as soon as there is one, and say why there is none until then."""

from __future__ import annotations

import random
from typing import Any

import attrs
import pytest
import trio
import trio.testing

from gpustack.domain.artifact import ModelSource, SourceKind
from gpustack.domain.instance import Claim, ModelInstance
from gpustack.domain.lifecycle import InstanceState as S
from gpustack.domain.model import Category, Model
from gpustack.domain.snapshot import Snapshot
from gpustack.domain.unit import GIB
from gpustack.domain.worker import Condition, Memory, Worker, WorkerState, WorkerStatus
from gpustack.errors import BadRequest, NotFound
from gpustack.server import deployment
from gpustack.server.facts import FactsCache
from gpustack.server.report import InstanceReport, StatusReport, report_instance
from gpustack.server.scheduler import Scheduler
from tests.policy.shapes import facts_of
from tests.policy.worlds import CPU_BUILD, CUDA_BUILD, CUSTOM, gpu

from .cluster import Cluster, Settled, hub

RUNNER = WorkerStatus(memory=Memory(total=64 * GIB), engines=(CPU_BUILD, CUSTOM))


@pytest.fixture
async def scheduler(cluster: Cluster, nursery: trio.Nursery, facts: FactsCache) -> Scheduler:
    service = Scheduler(cluster.store, facts)
    await nursery.start(lambda task_status: service.run(task_status=task_status))
    return service


async def test_an_instance_is_placed_once_its_header_is_read(cluster: Cluster, scheduler: Scheduler) -> None:
    cluster.readers.gate = trio.Event()
    worker = await cluster.worker("a", gpu(0, 24))
    model = await cluster.model("m")
    instance = await cluster.instance(model)
    waiting = await cluster.until_state(instance, S.ANALYZING)
    assert waiting.state_message == "Reading the header of the model file"
    cluster.readers.gate.set()
    placed = await cluster.until_state(instance, S.SCHEDULED)
    assert placed.placement is not None
    assert (placed.placement.worker_id, placed.placement.gpu_indexes) == (worker.id, (0,))
    assert placed.placement.claim.vram[0] > 0
    assert placed.state_message == placed.placement.note
    assert cluster.now(model).categories == ("llm",)


async def test_what_waits_says_what_is_short_and_is_not_written_again(
    cluster: Cluster, scheduler: Scheduler, settled: Settled
) -> None:
    cluster.readers.known["me/m/m.gguf"] = facts_of("llama-3.3-70b")
    worker = await cluster.worker("a", gpu(0, 8), ram=4)
    instance = await cluster.instance(await cluster.model("m", cpu_offloading=False))
    waiting = await cluster.until_told(instance, "short by")
    assert "GPU 0 of worker a has 7.0 GiB free of 8.0 GiB" in waiting.state_message
    assert "To make it fit: " in waiting.state_message
    revision = await settled()
    other = await cluster.model("other", replicas=0)
    await cluster.change(other, description="no matter")
    busier = attrs.evolve(worker.status, memory=attrs.evolve(worker.status.memory, used=3 * GIB))
    await cluster.report_status(worker.id, StatusReport(status=busier))
    cluster.clock.forward(3600)
    await cluster.change(other, description="still no matter")
    assert await settled() == revision + 4, "what the test wrote and nothing else"
    assert cluster.now(instance) == waiting


async def change_worker_joins(cluster: Cluster) -> None:
    await cluster.worker("new", ram=64)


async def change_status_arrives(cluster: Cluster) -> None:
    report = StatusReport(status=RUNNER)
    await cluster.report_status(cluster.snapshot.find(Worker, name="blank").id, report)  # type: ignore[union-attr]  # it is there


async def change_instance_ends(cluster: Cluster) -> None:
    (held,) = (i for i in cluster.snapshot.instances.values() if i.worker_id)
    await deployment.delete_instance(cluster.store, held.id)
    await report_instance(cluster.store, held.worker_id or 0, held.id, InstanceReport(gone=True))


async def change_uncordoned(cluster: Cluster) -> None:
    await cluster.change(cluster.snapshot.find(Worker, name="cordoned"), cordoned=False)


async def change_heard_again(cluster: Cluster) -> None:
    silent = cluster.snapshot.find(Worker, name="silent")
    await cluster.change(silent, condition=Condition(state=WorkerState.READY))


async def change_model_edited(cluster: Cluster) -> None:
    model = cluster.snapshot.find(Model, name="m")
    await cluster.change(model, env={"GPUSTACK_MODEL_RAM_CLAIM": "1000"})


CHANGES = (
    change_worker_joins,
    change_status_arrives,
    change_instance_ends,
    change_uncordoned,
    change_heard_again,
    change_model_edited,
)


@pytest.mark.parametrize("change", CHANGES, ids=lambda change: change.__name__)
async def test_any_change_that_makes_room_is_taken_up(
    cluster: Cluster, scheduler: Scheduler, settled: Settled, change: Any
) -> None:
    full = await cluster.worker("full", ram=8)
    await cluster.instance(await cluster.model("n"), on=full, claim=Claim(ram=6 * GIB - 2000))
    await cluster.worker("blank", status=WorkerStatus())
    await cluster.worker("cordoned", cordoned=True)
    await cluster.worker("silent", condition=Condition(state=WorkerState.NOT_READY, why="not heard"))
    instance = await cluster.instance(await cluster.model("m"))
    await cluster.until_told(instance, "cordoned")
    await settled()
    await change(cluster)
    await cluster.until_state(instance, S.SCHEDULED)


async def test_a_file_that_is_no_model_is_an_error_until_it_is_another_file(
    cluster: Cluster, scheduler: Scheduler, settled: Settled
) -> None:
    """Nobody is to wait for what cannot come; but the file may be replaced."""
    cluster.readers.known["me/m/m.gguf"] = BadRequest(
        "The header of me/m/m.gguf cannot be read: it is no GGUF file"
    )
    await cluster.worker("a")
    instance = await cluster.instance(await cluster.model("m"))
    failed = await cluster.until_state(instance, S.ERROR)
    assert "it is no GGUF file" in failed.state_message and failed.placement is None
    revision = await settled()
    cluster.clock.forward(60)
    await cluster.model("n", replicas=0)
    assert await settled() == revision + 1, "it is read again, and nothing was new"
    del cluster.readers.known["me/m/m.gguf"]
    cluster.clock.forward(60)
    await cluster.model("o", replicas=0)
    await cluster.until_state(instance, S.SCHEDULED)


async def test_a_header_that_cannot_be_read_is_told_and_read_again(
    cluster: Cluster, scheduler: Scheduler, settled: Settled
) -> None:
    cluster.readers.known["me/m/m.gguf"] = NotFound("me/m has no file m.gguf")
    await cluster.worker("a")
    instance = await cluster.instance(await cluster.model("m"))
    waiting = await cluster.until_told(instance, "me/m has no file m.gguf")
    assert waiting.state is S.PENDING
    revision = await settled()
    cluster.clock.forward(60)
    other = await cluster.model("n", replicas=0)
    assert await settled() == revision + 1, "it is asked for again, and nothing was new"
    assert len(cluster.readers.asked) == 2
    del cluster.readers.known["me/m/m.gguf"]
    cluster.clock.forward(60)
    await cluster.change(other, description="look again")
    await cluster.until_state(instance, S.SCHEDULED)


async def test_news_of_facts_are_enough_to_look_again(
    cluster: Cluster, scheduler: Scheduler, settled: Settled, facts: FactsCache
) -> None:
    cluster.readers.known["me/m/m.gguf"] = NotFound("not there")
    await cluster.worker("a")
    model = await cluster.model("m")
    instance = await cluster.instance(model)
    await cluster.until_told(instance, "not there")
    await settled()
    del cluster.readers.known["me/m/m.gguf"]
    cluster.clock.forward(60)
    facts.ask(model)
    await cluster.until_state(instance, S.SCHEDULED)


async def test_a_command_waits_for_nobody(cluster: Cluster, scheduler: Scheduler) -> None:
    worker = await cluster.worker("a")
    plain = await cluster.instance(
        await cluster.model("plain", backend="custom", command="serve --port {port}")
    )
    await cluster.until_state(plain, S.SCHEDULED)
    assert cluster.readers.asked == [], "it has no files"
    cluster.readers.known["me/files/files.gguf"] = NotFound("not there")
    files = await cluster.instance(
        await cluster.model("files", source=hub("files"), command="serve {model_path} --port {port}")
    )
    placed = await cluster.until_state(files, S.SCHEDULED)
    assert placed.worker_id == worker.id


async def test_a_backend_nobody_has_is_told(cluster: Cluster, scheduler: Scheduler) -> None:
    await cluster.worker("a")
    instance = await cluster.instance(await cluster.model("m", backend="nobodys"))
    await cluster.until_told(instance, "Backend 'nobodys' is not known here")


@pytest.mark.parametrize(
    ("read", "chosen", "kept"),
    [
        (Category.EMBEDDING, (), ("embedding",)),
        (Category.EMBEDDING, ("llm",), ("llm",)),
        (Category.UNKNOWN, (), ()),
        (None, (), ()),
    ],
)
async def test_the_header_says_what_a_model_answers_unless_a_user_did(
    cluster: Cluster,
    scheduler: Scheduler,
    read: Category | None,
    chosen: tuple[str, ...],
    kept: tuple[str, ...],
) -> None:
    facts = attrs.evolve(facts_of("qwen3-0.6b"), category=read, architecture="")
    cluster.readers.known["me/m/m.gguf"] = facts
    await cluster.worker("a")
    model = await cluster.model("m", categories=chosen)
    await cluster.until_state(await cluster.instance(model), S.SCHEDULED)
    now = cluster.now(model)
    assert (now.categories, now.generation) == (kept, 1)


async def test_an_instance_about_to_be_replaced_gets_no_place(
    cluster: Cluster, scheduler: Scheduler, settled: Settled
) -> None:
    model = await cluster.model("m")
    old = await cluster.instance(model)
    await cluster.until_told(old, "There is no worker yet")
    new = await cluster.instance(await deployment.update_model(cluster.store, model.id, {"env": {"A": "b"}}))
    await cluster.worker("a")
    await cluster.until_state(new, S.SCHEDULED)
    await settled()
    assert cluster.now(old).state is S.PENDING


async def test_a_file_replaced_on_disk_is_read_anew_for_a_new_instance(
    cluster: Cluster, scheduler: Scheduler
) -> None:
    await cluster.worker("a", gpu(0, 96))
    path = ModelSource(kind=SourceKind.LOCAL_PATH, local_path="/m.gguf")
    model = await cluster.model("m", source=path)
    small = await cluster.until_state(await cluster.instance(model), S.SCHEDULED)
    cluster.readers.known["/m.gguf"] = facts_of("llama-3.1-8b")
    cluster.clock.forward(3600)
    large = await cluster.until_state(await cluster.instance(model), S.SCHEDULED)
    assert small.placement is not None
    assert large.placement is not None
    assert large.placement.claim.vram[0] > 1.5 * small.placement.claim.vram[0]


def claimed(snapshot: Snapshot, worker: Worker) -> tuple[int, dict[int, int]]:
    ram, vram = 0, dict.fromkeys((d.index for d in worker.status.gpu_devices), 0)
    for _, claim in snapshot.claims_on(worker.id):
        ram += claim.ram
        for index, size in claim.vram.items():
            vram[index] += size
    return ram, vram


def overcommitted(snapshot: Snapshot) -> list[str]:
    faults = []
    for worker in snapshot.workers.values():
        ram, vram = claimed(snapshot, worker)
        if ram and ram + worker.system_reserved.ram > (worker.status.memory.total or 0):
            faults.append(f"memory of {worker.name}")
        for device in worker.status.gpu_devices:
            if vram[device.index] and vram[device.index] + worker.system_reserved.vram > (
                device.memory.total or 0
            ):
                faults.append(f"{worker.name}:{device.index}")
    return faults


async def test_of_two_that_race_for_the_last_place_one_gets_it(
    cluster: Cluster, scheduler: Scheduler, settled: Settled
) -> None:
    await cluster.worker("a", ram=8)
    model = await cluster.model("m", env={"GPUSTACK_MODEL_RAM_CLAIM": str(5 * GIB)})
    async with trio.open_nursery() as nursery:
        for name in ("first", "second"):

            async def ask(name: str = name) -> None:
                await cluster.instance(model, name=name)

            nursery.start_soon(ask)
    await settled()
    states = sorted(i.state for i in cluster.snapshot.instances.values())
    assert states == [S.PENDING, S.SCHEDULED]
    assert overcommitted(cluster.snapshot) == []


async def test_a_place_taken_since_the_decision_is_not_given_twice(
    cluster: Cluster, facts: FactsCache, nursery: trio.Nursery
) -> None:
    """The worker is filled, cordoned or removed in the very batch in which the claim arrives, before it."""

    class Meddled:
        """The store, where somebody is always a moment earlier."""

        def __init__(self, meddle: Any) -> None:
            self.meddle = meddle

        def __getattr__(self, name: str) -> Any:
            return getattr(cluster.store, name)

        async def write(self, work: Any) -> Any:
            def both(tx: Any) -> Any:
                meddle, self.meddle = self.meddle, None
                if meddle is not None:
                    meddle(tx)
                return work(tx)

            return await cluster.store.write(both)

    worker = await cluster.worker("a", ram=8)
    model = await cluster.model(
        "m",
        categories=("llm",),
        command="x {port}",
        backend="custom",
        env={"GPUSTACK_MODEL_RAM_CLAIM": str(5 * GIB)},
    )
    for number, meddle in enumerate(
        (
            lambda tx: tx.change(Worker, worker.id, cordoned=True),
            lambda tx: tx.change(Worker, worker.id, cordoned=False, status=WorkerStatus()),
            lambda tx: tx.delete(Worker, worker.id),
        )
    ):
        instance = await cluster.instance(model, name=f"i{number}")
        scheduler = Scheduler(Meddled(meddle), facts)  # type: ignore[arg-type]  # a store for what is asked of it
        with trio.CancelScope() as scope:
            async with trio.open_nursery() as running:
                await running.start(lambda task_status, s=scheduler: s.run(task_status=task_status))
                await cluster.until(lambda s, key=instance.id: s.instances[key].state_message)
                scope.cancel()
        assert cluster.now(instance).state is S.PENDING
        await cluster.store.write(lambda tx, key=instance.id: tx.delete(ModelInstance, key))


async def test_many_wait_and_all_that_fit_are_placed(
    cluster: Cluster, scheduler: Scheduler, settled: Settled
) -> None:
    await cluster.worker("a", ram=52)
    huge = await cluster.model("huge", env={"GPUSTACK_MODEL_RAM_CLAIM": str(500 * GIB)})
    small = await cluster.model("small", env={"GPUSTACK_MODEL_RAM_CLAIM": str(1 * GIB)})
    stuck = [await cluster.instance(huge) for _ in range(20)]
    lucky = [await cluster.instance(small) for _ in range(40)]
    await cluster.until(lambda s: all(s.instances[i.id].state is S.SCHEDULED for i in lucky))
    await cluster.until(lambda s: all("short by" in s.instances[i.id].state_message for i in stuck))
    revision = await settled()
    assert await settled() == revision


async def test_those_of_the_highest_priority_are_placed_first(
    cluster: Cluster, scheduler: Scheduler, settled: Settled
) -> None:
    """Else the oldest is: those that wait are looked at in one order when there is room again."""
    claim = {"GPUSTACK_MODEL_RAM_CLAIM": str(5 * GIB)}
    low, usual, high = [
        await cluster.model(f"m{priority}", priority=priority, env=claim) for priority in (-5, 0, 5)
    ]
    waiting = [await cluster.instance(one) for one in (low, usual, usual, high)]
    await settled()
    order = []
    for number in range(4):
        await cluster.worker(f"w{number}", ram=8)
        await settled()
        placed = [i.id for i in waiting if cluster.now(i).state is S.SCHEDULED]
        order += [key for key in placed if key not in order]
    assert order == [waiting[n].id for n in (3, 1, 2, 0)]


@attrs.define
class Meddler:
    """Makes a random cluster, and then lets instances and cordons come and go in it."""

    cluster: Cluster
    chance: random.Random
    models: list[Model] = attrs.field(factory=list)

    async def prepare(self) -> None:
        chance, cluster = self.chance, self.cluster
        for number in range(4):
            gpus = [gpu(index, chance.choice((6, 12, 24))) for index in range(chance.randint(0, 2))]
            build = CUDA_BUILD if gpus else CPU_BUILD
            await cluster.worker(f"w{number}", *gpus, ram=chance.choice((8, 16, 32)), build=build)
        for number, shape in enumerate(("qwen3-0.6b", "llama-3.2-1b", "gemma-3-4b")):
            cluster.readers.known[hub(shape).readable] = facts_of(shape)
            offload = chance.choice((None, False))
            self.models.append(await cluster.model(f"m{number}", source=hub(shape), cpu_offloading=offload))

    async def act(self) -> None:
        what, cluster = self.chance.randrange(5), self.cluster
        placed = [i for i in cluster.snapshot.instances.values() if i.worker_id and i.deleted_at is None]
        if what <= 2:
            await cluster.instance(self.chance.choice(self.models))
        elif what == 3:
            worker = self.chance.choice([*cluster.snapshot.workers.values()])
            await cluster.change(worker, cordoned=not worker.cordoned)
        elif placed:
            gone = self.chance.choice(placed)
            await deployment.delete_instance(cluster.store, gone.id)
            await report_instance(cluster.store, gone.worker_id or 0, gone.id, InstanceReport(gone=True))


@pytest.mark.parametrize("seed", range(6))
async def test_nothing_is_ever_promised_twice_whatever_happens_meanwhile(
    cluster: Cluster, scheduler: Scheduler, settled: Settled, seed: int
) -> None:
    faults: list[str] = []

    async def guard(*, task_status: trio.TaskStatus[None]) -> None:
        with cluster.store.watch() as wake:
            task_status.started()
            seen = cluster.snapshot.revision
            while await wake.wait():
                changes = cluster.store.changes_since(seen)
                seen = cluster.snapshot.revision
                new = [change.record for change in changes]
                if any(isinstance(one, ModelInstance) and one.state is S.SCHEDULED for one in new):
                    faults.extend(overcommitted(cluster.snapshot))

    meddler = Meddler(cluster, random.Random(seed))
    await meddler.prepare()
    async with trio.open_nursery() as nursery:
        await nursery.start(guard)
        for _ in range(25):
            await meddler.act()
        await settled()
        nursery.cancel_scope.cancel()
    instances = cluster.snapshot.instances.values()
    assert faults == []
    assert any(i.state is S.SCHEDULED for i in instances)
    assert all(i.state is S.SCHEDULED or len(i.state_message) > 20 for i in instances)
