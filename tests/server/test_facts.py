"""A header is read once by whoever can reach it, and what is known stays true and bounded."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest
import trio
import trio.testing

from gpustack.domain.artifact import ModelSource, SourceKind
from gpustack.domain.model import Model
from gpustack.domain.worker import Condition, WorkerState
from gpustack.errors import BadRequest, NotFound, Unavailable
from gpustack.nursery.wake import Wake
from gpustack.server.facts import FactsCache, FactsResult
from tests.policy.shapes import facts_of

from .cluster import Cluster, hub

SMALL, LARGE = facts_of("qwen3-0.6b"), facts_of("llama-3.1-8b")
PATH = ModelSource(kind=SourceKind.LOCAL_PATH, local_path="/m.gguf")


M = hub("m")


def model(source: ModelSource = M, **more: object) -> Model:
    return Model(name="m", source=source, **more)  # type: ignore[arg-type]  # a test's words


@pytest.fixture
async def facts(cluster: Cluster, nursery: trio.Nursery) -> FactsCache:
    source = cluster.facts(most=3)
    await nursery.start(lambda task_status: source.run(task_status=task_status))
    return source


@pytest.fixture
async def news(facts: FactsCache) -> AsyncIterator[Wake]:
    wake = Wake()
    with facts.notifying(wake):
        yield wake


async def read(facts: FactsCache, of: Model, news: Wake) -> FactsResult:
    """Ask, wait for a reading to end, and tell what is known then."""
    facts.ask(of)
    assert await news.wait(20)
    found = facts.known(of.source)
    assert found is not None
    return found


async def test_asking_does_not_wait_and_many_who_ask_are_one_reading(
    cluster: Cluster, facts: FactsCache, news: Wake
) -> None:
    cluster.readers.gate = trio.Event()
    for _ in range(3):
        assert facts.ask(model()) is None
        await trio.testing.wait_all_tasks_blocked()
    assert repr(facts) == "<FactsCache: 0 known, 1 being read>"
    cluster.readers.gate.set()
    assert (await read(facts, model(), news)).facts == SMALL
    assert facts.ask(model()) == facts.known(hub("m"))
    assert cluster.readers.asked == ["me/m/m.gguf"]


async def test_a_fault_is_told_and_asked_again_when_it_has_aged(
    cluster: Cluster, facts: FactsCache, news: Wake
) -> None:
    cluster.readers.known["me/m/m.gguf"] = NotFound("no such file")
    found = await read(facts, model(), news)
    assert (found.facts, found.fault) == (None, "no such file")
    cluster.clock.forward(29)
    assert facts.ask(model()) == found
    del cluster.readers.known["me/m/m.gguf"]
    cluster.clock.forward(2)
    assert facts.ask(model()) == found, "until it is known better"
    assert (await read(facts, model(), news)).facts == SMALL
    assert len(cluster.readers.asked) == 2


async def test_a_changed_file_is_noticed_and_a_vanished_one_is_not_forgotten(
    cluster: Cluster, facts: FactsCache, news: Wake, caplog: pytest.LogCaptureFixture
) -> None:
    assert (await read(facts, model(), news)).facts == SMALL
    cluster.readers.known["me/m/m.gguf"] = LARGE
    cluster.clock.forward(31)
    assert not facts.is_fresh(model(), facts.known(hub("m")))
    assert (await read(facts, model(), news)).facts == LARGE
    cluster.readers.known["me/m/m.gguf"] = Unavailable("the hub is away")
    cluster.clock.forward(31)
    found = await read(facts, model(), news)
    assert (found.facts, found.fault) == (LARGE, None)
    assert facts.is_fresh(model(), found), "it is not asked for at every turn"
    for _ in range(3):
        cluster.clock.forward(31)
        await read(facts, model(), news)
    assert caplog.text.count("the hub is away") == 1, "said once, however often it is found so"


async def test_a_reading_that_takes_too_long_is_a_fault(cluster: Cluster, nursery: trio.Nursery) -> None:
    facts = cluster.facts(read_within=0.01)
    await nursery.start(lambda task_status: facts.run(task_status=task_status))
    cluster.readers.gate = trio.Event()
    wake = Wake()
    with facts.notifying(wake):
        found = await read(facts, model(), wake)
    assert found.fault == "Reading the header of me/m/m.gguf took longer than 0 s"


async def test_only_so_many_are_read_at_once_and_all_are_read(
    cluster: Cluster, nursery: trio.Nursery
) -> None:
    facts = cluster.facts(at_once=2)
    await nursery.start(lambda task_status: facts.run(task_status=task_status))
    cluster.readers.gate = trio.Event()
    models = [model(hub(f"m{number}")) for number in range(6)]
    wake = Wake()
    with facts.notifying(wake), trio.fail_after(20):
        for one in models:
            facts.ask(one)
        await trio.testing.wait_all_tasks_blocked()
        cluster.readers.gate.set()
        while not all(facts.known(one.source) for one in models):
            await wake.wait()
    assert cluster.readers.most_at_once == 2


async def test_what_nobody_asks_for_is_forgotten_first(
    cluster: Cluster, facts: FactsCache, news: Wake
) -> None:
    for name in ("a", "b", "c"):
        await read(facts, model(hub(name)), news)
    facts.ask(model(hub("a")))
    await read(facts, model(hub("d")), news)
    assert [name for name in "abcd" if facts.known(hub(name))] == ["a", "c", "d"]


async def test_a_path_unknown_here_is_asked_of_the_workers_that_the_deployment_selects_first(
    cluster: Cluster, facts: FactsCache, news: Wake
) -> None:
    cluster.readers.known["/m.gguf"] = NotFound("not here")
    for name in ("other", "silent", "chosen"):
        await cluster.worker(name, labels={"zone": "a"} if name == "chosen" else {})
    silent = cluster.snapshot.workers[2]
    await cluster.change(silent, condition=Condition(state=WorkerState.NOT_READY))
    cluster.readers.there = {
        ("chosen", "/m.gguf"): NotFound("/m.gguf does not exist on chosen"),
        ("other", "/m.gguf"): SMALL,
    }
    found = await read(facts, model(PATH, worker_selector={"zone": "a"}), news)
    assert found.facts == SMALL
    assert cluster.readers.asked == ["/m.gguf", "chosen:/m.gguf", "other:/m.gguf"]


async def test_the_fault_of_a_path_is_the_one_of_the_likeliest_worker(
    cluster: Cluster, facts: FactsCache, news: Wake
) -> None:
    cluster.readers.known["/m.gguf"] = NotFound("not here")
    found = await read(facts, model(PATH), news)
    assert found.fault is not None
    assert "no worker is ready to be asked" in found.fault
    first = await cluster.worker("first")
    cluster.readers.there[first.name, "/m.gguf"] = NotFound("/m.gguf does not exist on first")
    assert not facts.is_fresh(model(PATH), found), "somebody new may know"
    found = await read(facts, model(PATH), news)
    assert found.fault == "/m.gguf does not exist on first"
    assert facts.is_fresh(model(PATH), found)
    second = await cluster.worker("second")
    cluster.readers.there[second.name, "/m.gguf"] = LARGE
    assert (await read(facts, model(PATH), news)).facts == LARGE


async def test_a_broken_file_here_is_not_read_over_and_over(
    cluster: Cluster, facts: FactsCache, news: Wake
) -> None:
    await cluster.worker("ready")
    cluster.readers.known["/m.gguf"] = BadRequest("it does not start as a GGUF file does")
    found = await read(facts, model(PATH), news)
    assert found.fault == "it does not start as a GGUF file does"
    assert facts.is_fresh(model(PATH), found), "workers do not know better, and are not asked"
    facts.ask(model(PATH))
    await trio.testing.wait_all_tasks_blocked()
    assert cluster.readers.asked == ["/m.gguf"]
    cluster.clock.forward(30)
    assert not facts.is_fresh(model(PATH), found), "it may have been mended"


async def test_a_worker_that_does_not_answer_does_not_keep_others_from_being_asked(
    cluster: Cluster, nursery: trio.Nursery
) -> None:
    facts = cluster.facts(worker_within=0.01)
    await nursery.start(lambda task_status: facts.run(task_status=task_status))
    cluster.readers.known["/m.gguf"] = NotFound("not here")
    for name in ("hung", "good"):
        await cluster.worker(name)
    cluster.readers.there = {("hung", "/m.gguf"): None, ("good", "/m.gguf"): SMALL}
    wake = Wake()
    with facts.notifying(wake):
        assert (await read(facts, model(PATH), wake)).facts == SMALL


async def test_a_worker_that_did_not_answer_is_asked_again_soon(
    cluster: Cluster, facts: FactsCache, news: Wake
) -> None:
    """One whose daemon has just been started again answers in a moment."""
    worker = await cluster.worker("node-a")
    cluster.readers.known["/m.gguf"] = NotFound("not here")
    cluster.readers.there["node-a", "/m.gguf"] = Unavailable(
        "Worker node-a answered: It has not joined its server yet"
    )
    found = await read(facts, model(PATH), news)
    assert found.asked == {worker.id} and "not joined" in (found.fault or "")
    assert facts.fresh_for == 5.0
    cluster.readers.there["node-a", "/m.gguf"] = NotFound("/m.gguf is not on node-a")
    cluster.clock.forward(6)
    assert "is not on" in ((await read(facts, model(PATH), news)).fault or "")
    assert facts.fresh_for == 30.0, "it has answered"


async def test_readings_under_way_are_begun_again_after_a_restart(cluster: Cluster) -> None:
    facts = cluster.facts()
    cluster.readers.gate = trio.Event()
    facts.ask(model())
    for _ in range(2):
        async with trio.open_nursery() as nursery:
            await nursery.start(lambda task_status: facts.run(task_status=task_status))
            facts.ask(model())
            await trio.testing.wait_all_tasks_blocked()
            nursery.cancel_scope.cancel()
    assert len(cluster.readers.asked) == 2
