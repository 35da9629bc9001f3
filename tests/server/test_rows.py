"""A fault in any step of any loop of a server, for one row, ends nothing: others are served, it is tried again."""

from __future__ import annotations

import logging
import random
from collections.abc import Callable, Sequence
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import trio
import trio.testing

from gpustack.domain.access import ApiKey
from gpustack.domain.artifact import ModelSource, SourceKind
from gpustack.domain.audit import AuditEvent, AuditOutcome
from gpustack.domain.lifecycle import TRANSITIONS, InstanceState, Party, allowed
from gpustack.domain.lifecycle import InstanceState as S
from gpustack.domain.load import load_of
from gpustack.domain.model import Model
from gpustack.domain.usage import Operation
from gpustack.domain.worker import Cpu, WorkerState, WorkerStatus
from gpustack.errors import BadRequest, NotFound, Unavailable
from gpustack.gateway import endpoints, inference, model_route
from gpustack.gateway.endpoints import Endpoints
from gpustack.gateway.inference import Gateway, Revocation
from gpustack.identity.oidc.discovery import Discovery
from gpustack.nursery.service import Service
from gpustack.policy import look
from gpustack.policy.fits import one_gpu
from gpustack.policy.liveness import LivenessSettings
from gpustack.policy.scores import spread
from gpustack.policy.usage_limit import LimitKind
from gpustack.server import (
    assignment_index,
    audit_trail,
    cluster_load,
    decisions,
    key_use,
    liveness,
    reconciler,
    scheduler,
    token_budget,
    usage_ledger,
)
from gpustack.server.assignment_index import AssignmentIndex
from gpustack.server.audit_trail import AuditTrail
from gpustack.server.catalog import Catalog
from gpustack.server.cluster_load import LoadHistory
from gpustack.server.facts import FactsCache
from gpustack.server.heartbeat import HeartbeatTimes
from gpustack.server.key_use import KeyUseLedger
from gpustack.server.liveness import Liveness
from gpustack.server.reconciler import ReplicaReconciler
from gpustack.server.scheduler import Scheduler
from gpustack.server.token_budget import TokenBudgets
from gpustack.server.update_check import UpdateCheck
from gpustack.server.usage_ledger import UsageKey, UsageLedger
from gpustack.store.transaction import Tx
from gpustack.worker.report import InstanceReporter
from tests.policy.shapes import facts_of
from tests.policy.worlds import gpu
from tests.stumble import Stumble, Unforeseen, services

from .cluster import PATIENCE, Cluster

PLACING: dict[str, list[Any]] = {
    "Scheduler": [
        partial(Stumble, decisions, "decide", lambda model, *_: model.name == "one"),
        partial(Stumble, scheduler, "decide_again", lambda model, *_: model.name == "one"),
        partial(Stumble, scheduler, "has_files", lambda model: model.name == "one"),
        partial(Stumble, Scheduler, "_fill_category", lambda self, model, _: model.name == "one"),
        partial(
            Stumble,
            Scheduler,
            "_claim",
            lambda self, all_: any(one.ready.model.name == "one" for one in all_.values()),
        ),
        partial(Stumble, Scheduler, "_note", lambda self, key, *_: key == 1),
        partial(Stumble, FactsCache, "ask", lambda self, model: model.name == "one"),
    ],
    "FactsCache": [partial(Stumble, FactsCache, "_reading_of", lambda self, model: model.name == "one", 1)],
    "ReplicaReconciler": [
        partial(Stumble, reconciler, "replica_plan", lambda model, *_: model.name == "one"),
        partial(Stumble, ReplicaReconciler, "_create", lambda self, tx, model, *_: model.name == "one"),
    ],
}
SILENCE: dict[str, list[Any]] = {
    "Liveness": [
        partial(Stumble, Liveness, "_is_to_write", lambda self, worker, *_: worker.name == "a"),
        partial(Stumble, liveness, "_write_condition", lambda key, *_: key == 1),
        partial(Stumble, liveness, "_mark_one", lambda key, *_: key == 1),
        partial(Stumble, liveness, "_is_cut_off", lambda instance, _: instance.id == 1),
        partial(Stumble, liveness, "_give_up", lambda key, *_: key == 1),
    ]
}
OTHERS: dict[str, str] = {
    "AssignmentIndex": "test_a_record_that_cannot_be_put_into_a_state_keeps_no_other_from_its_worker",
    "AuditTrail": "test_an_event_that_cannot_be_stored_is_told_lost_and_the_others_are_there",
    "TokenBudgets": "test_a_budget_that_cannot_be_drawn_of_keeps_no_other_waiting",
    "Catalog": "test_what_is_asked_of_others_now_and_then_goes_on_after_a_fault",
    "Discovery": "test_what_is_asked_of_others_now_and_then_goes_on_after_a_fault",
    "Endpoints": "test_a_route_that_cannot_be_made_says_so_and_the_others_serve",
    "KeyUseLedger": "test_the_use_of_one_key_that_cannot_be_dated_leaves_the_others_dated",
    "LoadHistory": "test_the_load_is_that_of_the_workers_that_can_be_counted",
    "ServerPresence": "tests/server/test_presence.py::test_a_worker_of_whom_nothing_can_be_told_is_left_out",
    "ModelMetaReader": "tests/server/test_model_meta.py::test_an_engine_that_answers_nonsense_keeps_no_other_waiting",
    "Revocation": "test_who_cannot_be_judged_is_cut_off_and_the_others_are_judged",
    "SurvivalWatch": "tests/server/test_survival.py::test_a_worker_of_whom_nothing_can_be_said_leaves_the_others",
    "UpdateCheck": "test_what_is_asked_of_others_now_and_then_goes_on_after_a_fault",
    "UsageLedger": "test_counts_that_cannot_be_stored_wait_and_the_others_are_stored",
}
"""Loops with a test of their own."""
ROWLESS: dict[str, str] = {
    "Leadership": "there is one lease",
    "Limiter": "it waits until it is cancelled",
    "LoadExchange": "all loads of a server are one row",
    "RayHeadRecorder": "there is one head",
    "Store": "each work is a boundary of its own (store/writer.py)",
    "Exporter": "an answer is made when it is asked for, and its fault is that request's",
    "LoopLag": "it measures one thing",
    "ModelRates": "it subtracts what was counted in memory, and looks at no record",
    "FlushDeadline": "it waits until it is cancelled",
}
CASES = [made for cases in PLACING.values() for made in cases]


def test_no_loop_of_a_server_is_forgotten() -> None:
    found = services("server", "gateway", "identity", "store", "metrics")
    assert found == PLACING.keys() | SILENCE.keys() | OTHERS.keys() | ROWLESS.keys()
    here = Path(__file__).resolve()
    for named in OTHERS.values():
        path, _, test = named.rpartition("::")
        assert f"def {test}(" in (here if not path else here.parents[2] / path).read_text(), named


async def begin(nursery: trio.Nursery, *services: Service) -> None:
    for service in services:
        await nursery.start(lambda task_status, one=service: one.run(task_status=task_status))


def aside(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [r.getMessage() for r in caplog.records if r.getMessage().startswith("Set a row aside")]


@pytest.mark.parametrize("make", CASES, ids=lambda make: str(make()))
async def test_a_step_that_fails_for_one_deployment_keeps_no_other_from_its_place(
    make: Any,
    cluster: Cluster,
    nursery: trio.Nursery,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    stumble: Stumble = make()
    stumble.put(monkeypatch)
    facts = cluster.facts(fresh_for=0.5)
    with caplog.at_level(logging.ERROR):
        loops = (facts, Scheduler(cluster.store, facts), ReplicaReconciler(cluster.store, random.Random(1)))
        await begin(nursery, *loops)
        await cluster.worker("a", gpu(0, 24))
        one, two = await cluster.model("one"), await cluster.model("two")

        def placed(model: Model) -> Callable[[Any], bool]:
            return lambda s: any(i.state is S.SCHEDULED for i in s.instances_of(model.id))

        await cluster.until(placed(two))
        cluster.clock.forward(1)  # facts are read again after a while
        await cluster.until(placed(one))
        await cluster.until(
            lambda s: not any(i.state_message.startswith("A fault") for i in s.instances.values())
        )
    assert stumble.fallen > 0
    # One that cannot be written is not told of its fault either.
    assert len(aside(caplog)) == (2 if stumble.step == "_note" else 1), caplog.text


async def test_a_place_that_cannot_be_claimed_is_kept_from_nobody(
    cluster: Cluster, nursery: trio.Nursery, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first of two is promised the only GPU, and the second refused for that; then the first cannot have it."""
    Stumble(
        Scheduler,
        "_claim",
        lambda self, all_: any(one.ready.model.name == "one" for one in all_.values()),
        times=1000,
    ).put(monkeypatch)
    whole = {"GPUSTACK_MODEL_VRAM_CLAIM": str(20 << 30)}
    made = [await cluster.model(name, env=whole, cpu_offloading=False) for name in ("one", "two")]
    one, two = [await cluster.instance(model) for model in made]
    await cluster.worker("a", gpu(0, 24))
    facts = cluster.facts()
    await begin(nursery, facts, Scheduler(cluster.store, facts))
    assert (await cluster.until_state(two, S.SCHEDULED)).worker_id is not None
    assert cluster.snapshot.instances[one.id].placement is None


AT_A_WORKER = [
    (look, "objections", lambda ask, worker, *_, **__: worker.name == "a"),
    (one_gpu, "candidates", lambda ask, here, *_: here.worker.name == "a"),
    (spread, "score", lambda candidate, *_: candidate.worker.name == "a"),
]


@pytest.mark.parametrize(("owner", "step", "row"), AT_A_WORKER, ids=[step for _, step, _ in AT_A_WORKER])
async def test_a_worker_that_cannot_be_looked_at_keeps_nothing_from_its_place_on_another(
    owner: Any,
    step: str,
    row: Callable[..., bool],
    cluster: Cluster,
    nursery: trio.Nursery,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    Stumble(owner, step, row, times=1000).put(monkeypatch)
    facts = cluster.facts()
    with caplog.at_level(logging.ERROR):
        await begin(nursery, facts, Scheduler(cluster.store, facts))
        workers = [await cluster.worker(name, gpu(0, 24)) for name in ("a", "b")]
        for name in ("one", "two", "three"):
            instance = await cluster.instance(await cluster.model(name))
            placed = await cluster.until_state(instance, S.SCHEDULED)
            assert placed.worker_id == workers[1].id
    assert len(aside(caplog)) == 1, caplog.text


async def test_a_worker_that_cannot_be_looked_at_is_told_of_and_looked_at_again(
    cluster: Cluster, nursery: trio.Nursery, monkeypatch: pytest.MonkeyPatch
) -> None:
    stumble = Stumble(look, "objections", lambda ask, worker, *_, **__: worker.name == "a", times=1000)
    stumble.put(monkeypatch)
    facts = cluster.facts(fresh_for=0.5)
    await begin(nursery, facts, Scheduler(cluster.store, facts))
    await cluster.worker("a", gpu(0, 24))
    await cluster.worker("b", ram=0.1)
    instance = await cluster.instance(await cluster.model("m"))
    told = await cluster.until_told(instance, "worker a could not be looked at")
    assert "Unforeseen" in told.state_message and "stumbled" not in told.state_message
    stumble.times = 0  # nothing is written that would wake the loop
    await cluster.until_state(instance, S.SCHEDULED)


async def test_an_instance_says_what_was_met_when_it_was_looked_at(
    cluster: Cluster, nursery: trio.Nursery, monkeypatch: pytest.MonkeyPatch
) -> None:
    Stumble(decisions, "decide", times=1000).put(monkeypatch)
    facts = cluster.facts()
    await begin(nursery, facts, Scheduler(cluster.store, facts))
    instance = await cluster.instance(await cluster.model("m"))
    told = await cluster.until_told(instance, "A fault that nobody foresaw (Unforeseen, scheduler)")
    assert told.state is S.PENDING


async def test_a_header_that_a_library_cannot_read_is_told(cluster: Cluster, nursery: trio.Nursery) -> None:
    """As of a client that a word of the environment breaks: what it raises is in no list of ours."""

    async def breaks(*_: Any) -> Any:
        await trio.lowlevel.checkpoint()
        raise UnicodeEncodeError("ascii", "Bearer hf_secret\n", 0, 1, "no")

    facts = FactsCache(breaks, breaks, lambda: cluster.snapshot)
    await begin(nursery, facts, Scheduler(cluster.store, facts))
    instance = await cluster.instance(await cluster.model("m"))
    told = await cluster.until_told(instance, "UnicodeEncodeError, facts")
    assert "hf_secret" not in told.state_message


async def test_a_worker_that_cannot_be_asked_keeps_no_other_from_being_asked(
    cluster: Cluster, nursery: trio.Nursery
) -> None:
    async def there(worker: Any, source: Any) -> Any:
        if worker.name == "a":
            raise Unforeseen("stumbled")
        return await readers.read_there(worker, source)

    readers = cluster.readers
    source = ModelSource(kind=SourceKind.LOCAL_PATH, local_path="/models/m.gguf")
    readers.known["/models/m.gguf"] = NotFound("it is not here")
    readers.there["b", "/models/m.gguf"] = facts_of("qwen3-0.6b")
    facts = FactsCache(readers.read_here, there, lambda: cluster.snapshot)
    await begin(nursery, facts, Scheduler(cluster.store, facts))
    await cluster.worker("a", gpu(0, 24))
    await cluster.worker("b", gpu(0, 24))
    await cluster.until_state(await cluster.instance(await cluster.model("m", source=source)), S.SCHEDULED)


@pytest.mark.parametrize("make", SILENCE["Liveness"], ids=lambda make: str(make()))
async def test_a_step_that_fails_for_one_worker_keeps_no_other_from_being_judged(
    make: Any,
    cluster: Cluster,
    nursery: trio.Nursery,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    heartbeats = HeartbeatTimes(cluster.clock.monotonic)
    settings = LivenessSettings(look_every=0.05, brake_share=1.0)
    workers = [await cluster.worker(name, gpu(0, 24)) for name in ("a", "b")]
    there = [await cluster.instance(await cluster.model(f"m{w.id}"), on=w) for w in workers]
    for worker in workers:
        heartbeats.heard(worker.id)
    stumble: Stumble = make()
    stumble.put(monkeypatch)
    with caplog.at_level(logging.ERROR):
        await begin(nursery, Liveness(cluster.store, heartbeats, settings, cluster.clock.monotonic))
        cluster.clock.forward(60)
        for worker, instance in reversed(list(zip(workers, there, strict=True))):
            await cluster.until(
                lambda s, key=worker.id: s.workers[key].condition.state is WorkerState.NOT_READY
            )
            await cluster.until_state(instance, S.UNREACHABLE)
        cluster.clock.forward(600)
        for instance in reversed(there):
            await cluster.until_state(instance, S.PENDING)
    assert stumble.fallen > 0
    assert len(aside(caplog)) == 1, caplog.text


def is_asked(states: Sequence[InstanceState], target: InstanceState, by: Party) -> bool:
    return all(allowed(state, target, by) for state in states)


def test_no_move_is_asked_for_that_a_life_does_not_have() -> None:
    """What each party asks, from every state in which it may be asked."""
    waiting = [S.PENDING, S.ANALYZING]
    placed = sorted({t.source for t in TRANSITIONS if t.by is Party.LIVENESS})
    assert is_asked(waiting, S.ANALYZING, Party.SCHEDULER)
    assert is_asked([*waiting, S.ERROR], S.PENDING, Party.SCHEDULER)
    assert is_asked([*waiting, S.ERROR], S.ERROR, Party.SCHEDULER)
    assert is_asked(waiting, S.SCHEDULED, Party.SCHEDULER)
    assert is_asked(placed, S.PENDING, Party.LIVENESS)
    assert is_asked([S.RUNNING], S.UNREACHABLE, Party.LIVENESS)
    assert is_asked([S.UNREACHABLE], S.RUNNING, Party.LIVENESS)


@pytest.mark.parametrize("target", [S.INITIALIZING, S.DOWNLOADING, S.STARTING, S.RUNNING, S.ERROR])
@pytest.mark.parametrize("source", sorted({t.source for t in TRANSITIONS if t.by is Party.WORKER}))
def test_a_worker_says_nothing_that_the_life_does_not_have(source: S, target: S) -> None:
    told: list[S] = [source]

    class Book:
        def add_instance(self, _: int, said: Any) -> None:
            told.append(said.state)

    InstanceReporter(Book(), 1, source).report(target)  # type: ignore[arg-type]  # all that it does with reports
    assert told[-1] is target
    for before, after in pairwise(told):
        assert allowed(before, after, Party.WORKER), told


@pytest.mark.parametrize("source", [S.PENDING, S.ANALYZING, S.ERROR])
@pytest.mark.parametrize(
    "found", ["nothing yet", "a place", "no place", "a broken file", "a file out of reach"]
)
async def test_whatever_is_found_a_waiting_instance_makes_moves_that_its_life_has(
    source: S, found: str, cluster: Cluster, nursery: trio.Nursery, caplog: pytest.LogCaptureFixture
) -> None:
    """Also after a start, when nothing is known yet of files that were known before."""
    known: dict[str, Any] = {"a broken file": BadRequest("broken"), "a file out of reach": NotFound("away")}
    if found in known:
        cluster.readers.known["me/m/m.gguf"] = known[found]
    if found == "nothing yet":
        cluster.readers.gate = trio.Event()
    if found == "a place":
        await cluster.worker("a", gpu(0, 24))
    instance = await cluster.instance(await cluster.model("m"))

    def bring(tx: Tx) -> None:
        now = tx.get(type(instance), instance.id)
        assert now is not None
        if source is not S.PENDING:
            tx.move(now, source, by=Party.SCHEDULER, message="as it was before the start")

    await cluster.store.write(bring)
    with caplog.at_level(logging.DEBUG):
        facts = cluster.facts()
        await begin(nursery, facts, Scheduler(cluster.store, facts))
        expected = {
            "nothing yet": source if source is S.ERROR else S.ANALYZING,
            "a place": S.SCHEDULED,
            "no place": S.PENDING,
            "a broken file": S.ERROR,
            "a file out of reach": S.PENDING,
        }[found]
        await cluster.until_state(instance, expected)
        await trio.testing.wait_all_tasks_blocked(0.05)
    assert cluster.now(instance).state is expected
    assert aside(caplog) == []


async def test_the_load_is_that_of_the_workers_that_can_be_counted(
    cluster: Cluster, nursery: trio.Nursery, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, rate in (("a", 10.0), ("b", 30.0)):
        await cluster.worker(name, status=WorkerStatus(cpu=Cpu(utilization_rate=rate)))
    for worker in cluster.snapshot.workers.values():
        cluster.live.reported(worker.id, load_of(worker.status))
    history = LoadHistory(lambda: cluster.snapshot, cluster.live, cluster.clock)
    Stumble(cluster_load, "_rates", lambda worker, load: worker.name == "a", 1).put(monkeypatch)
    await begin(nursery, history)
    await trio.testing.wait_all_tasks_blocked()
    history.sample()
    assert [sample.load.cpu for sample in history.samples] == [30.0, 20.0]


async def test_the_use_of_one_key_that_cannot_be_dated_leaves_the_others_dated(
    cluster: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    keys = [
        await cluster.store.write(
            lambda tx, n=name: tx.insert(ApiKey(name=n, user_id=1, access_key=n, secret_hash="x"))
        )
        for name in ("a", "b")
    ]
    use = KeyUseLedger(cluster.store, cluster.clock)
    Stumble(key_use, "_note", lambda key, *_: key == keys[0].id).put(monkeypatch)
    for key in keys:
        use.note(key.id)
    await use.flush()
    assert [cluster.now(key).last_used_at for key in keys] == [None, cluster.clock.now]


async def test_counts_that_cannot_be_stored_wait_and_the_others_are_stored(
    cluster: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    def key(user: int) -> UsageKey:
        return UsageKey(
            user_id=user,
            api_key_id=-1,
            model_id=1,
            operation=Operation.EMBEDDING,
            username="u",
            model_name="m",
        )

    stored: list[int] = []
    whole = Tx.add_usage

    def note(tx: Tx, rows: Any) -> None:
        if any(row.user_id == 1 for row in rows):
            raise Unforeseen("stumbled")
        stored.extend(row.user_id for row in rows)
        whole(tx, rows)

    monkeypatch.setattr(Tx, "add_usage", note)
    ledger = UsageLedger(cluster.store, cluster.clock)
    for user in (1, 2, 3):
        ledger.add(key(user), prompt=1, completion=1, failed=False)
    await ledger.flush()
    assert sorted(stored) == [2, 3]
    assert repr(ledger) == "<UsageLedger: 1 rows to store>"
    monkeypatch.setattr(usage_ledger, "_TRIES", 1)
    await ledger.flush()
    assert repr(ledger) == "<UsageLedger: 0 rows to store>", "what can never be stored is not kept for ever"


async def test_an_event_that_cannot_be_stored_is_told_lost_and_the_others_are_there(
    cluster: Cluster, nursery: trio.Nursery, monkeypatch: pytest.MonkeyPatch
) -> None:
    stored: list[str] = []

    def event(action: str, name: str = "") -> AuditEvent:
        return AuditEvent(
            at=cluster.clock.now, action=action, outcome=AuditOutcome.REFUSED, status=403, actor_name=name
        )

    whole = audit_trail.insert

    def note(tx: Tx, events: Any) -> None:
        listed = list(events)
        if any(one.action == "bad" for one in listed):
            raise Unforeseen("stumbled")
        whole(tx, listed)
        stored.extend(one.action for one in listed)

    monkeypatch.setattr(audit_trail, "insert", note)
    trail = AuditTrail(cluster.store, cluster.clock, cluster.clock.monotonic)
    for action in ("a", "bad", "b"):
        trail.add(event(action, "caf\udce9\0"))
    await trail.flush()
    assert stored == ["a", "b", "audit.lost"]
    assert repr(trail) == "<AuditTrail: 0 events to store, 0 kinds counted>"


async def test_a_budget_that_cannot_be_drawn_of_keeps_no_other_waiting(
    cluster: Cluster, nursery: trio.Nursery, monkeypatch: pytest.MonkeyPatch
) -> None:
    Stumble(token_budget, "_draw", lambda draw, *_: draw.subject == "key:1").put(monkeypatch)
    budgets = TokenBudgets(cluster.store, cluster.clock, cluster.clock.monotonic)
    one, two = (budgets.block(f"key:{n}", LimitKind.DAY, 1000) for n in (1, 2))
    fates: list[str] = []

    async def draw(block: Any) -> None:
        try:
            await budgets.draw([(block, 10)])
        except Unavailable:
            fates.append(f"{block.subject} away")
        else:
            fates.append(f"{block.subject} drawn")

    with trio.fail_after(PATIENCE):
        async with trio.open_nursery() as asking:
            asking.start_soon(draw, one)
            asking.start_soon(draw, two)
            await trio.testing.wait_all_tasks_blocked()
            await begin(nursery, budgets)
    assert sorted(fates) == ["key:1 away", "key:2 drawn"]


@pytest.mark.parametrize("which", ["update check", "catalog", "discovery"])
async def test_what_is_asked_of_others_now_and_then_goes_on_after_a_fault(
    which: str, cluster: Cluster, nursery: trio.Nursery, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nobody's answer is worth a daemon."""
    rng = random.Random(1)
    made: Service
    if which == "update check":
        made = UpdateCheck("1.0.0", "http://127.0.0.1:9/", cluster.clock, rng, every=0.01)
        stumble = Stumble(UpdateCheck, "look", times=3)
    elif which == "catalog":
        made = Catalog("http://[127.0.0.1:9/", again_after=0.01)  # no address at all: it never gets a client
        stumble = Stumble(Catalog, "_take_from", times=3)
    else:
        monkeypatch.setattr("gpustack.identity.oidc.discovery._FIRST_WAIT", 0.01)
        made = Discovery("http://127.0.0.1:9", cluster.clock.monotonic)
        stumble = Stumble(Discovery, "look", times=3)
    stumble.put(monkeypatch)
    await begin(nursery, made)
    with trio.fail_after(PATIENCE):
        while stumble.fallen < 3:  # noqa: ASYNC110  # it has no event
            await trio.sleep(0.01)


ROUTING = [
    partial(Stumble, model_route, "_route", lambda model, *_: model.name == "one"),
    partial(Stumble, model_route, "_endpoint", lambda instance, *_: instance.model_name == "one"),
    partial(Stumble, endpoints, "_reached", lambda worker: worker.name == "a"),
]


@pytest.mark.parametrize("make", ROUTING, ids=lambda make: str(make()))
async def test_a_route_that_cannot_be_made_says_so_and_the_others_serve(
    make: Any, cluster: Cluster, nursery: trio.Nursery, monkeypatch: pytest.MonkeyPatch
) -> None:
    stumble: Stumble = make()
    worker = await cluster.worker("a", gpu(0, 24))
    for name in ("one", "two"):
        await cluster.instance(await cluster.model(name), on=worker)
    stumble.put(monkeypatch)
    table = Endpoints(cluster.store, random.Random(1))
    await begin(nursery, table)
    two, one = table.route("two"), table.route("one")
    assert two is not None and len(two.endpoints) == 1
    if stumble.step == "_route":
        assert one is not None and "nobody foresaw" in one.pending_details
    with trio.fail_after(PATIENCE):
        while not (found := table.route("one")) or not found.endpoints:  # noqa: ASYNC110  # it has no event
            await trio.sleep(0.01)
    assert stumble.fallen > 0


async def test_who_cannot_be_judged_is_cut_off_and_the_others_are_judged(
    cluster: Cluster, nursery: trio.Nursery, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Under:
        def __init__(self, user_id: int) -> None:
            self.user_id, self.api_key_id, self.model_id, self.was_cut = user_id, None, 1, False

        def cut(self) -> None:
            self.was_cut = True

    requests = [Under(key) for key in (1, 2, 3)]
    gateway = Gateway.__new__(Gateway)
    object.__setattr__(gateway, "_under_way", {one: (one, one) for one in requests})

    def may_go_on(who: Under, *_: Any) -> bool:
        if who.user_id == 1:
            raise Unforeseen("stumbled")
        return who.user_id == 2

    monkeypatch.setattr(inference, "_may_go_on", may_go_on)
    await begin(nursery, Revocation(cluster.store, gateway))
    await cluster.model("m")
    with trio.fail_after(PATIENCE):
        while not requests[2].was_cut:  # noqa: ASYNC110  # it has no event
            await trio.sleep(0.01)
    assert [one.was_cut for one in requests] == [True, False, True]


async def test_a_record_that_cannot_be_put_into_a_state_keeps_no_other_from_its_worker(
    cluster: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    worker = await cluster.worker("a", gpu(0, 24))
    index = AssignmentIndex(cluster.store)
    assert index.of(worker.id).instances == {}
    stumble = Stumble(assignment_index, "workers_of", lambda instance: instance.model_name == "one", 1000)
    stumble.put(monkeypatch)
    one = await cluster.instance(await cluster.model("one"), on=worker)
    two = await cluster.instance(await cluster.model("two"), on=worker)
    assert set(index.of(worker.id).instances) == {two.id}
    stumble.times = 0
    with trio.fail_after(PATIENCE):
        while set(index.of(worker.id).instances) != {one.id, two.id}:  # noqa: ASYNC110  # it is asked, it does not tell
            await trio.sleep(0.05)
