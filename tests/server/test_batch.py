"""Many that wait together: as many as possible get a place, and none that has waited loses its own."""

from __future__ import annotations

from typing import Any

import attrs
import trio
from hypothesis import given
from hypothesis import strategies as st

from gpustack.domain.instance import Placement
from gpustack.domain.lifecycle import InstanceState as S
from gpustack.domain.model import Model
from gpustack.domain.snapshot import Snapshot
from gpustack.domain.unit import GIB
from gpustack.policy.batch import PACKED, pack
from gpustack.policy.decision import decide
from gpustack.policy.placement import USUAL_GANGS
from gpustack.server.decisions import Ready, decide_all
from gpustack.server.scheduler import Scheduler
from tests.laws import law
from tests.policy.shapes import facts_of
from tests.policy.worlds import ask, gpu, instance, model, worker, world

from .cluster import Cluster, Settled


def claiming(key: int, gib: int, **fields: Any) -> Model:
    return model(key, env={"GPUSTACK_MODEL_RAM_CLAIM": str(gib * GIB)}, **fields)


def waiting(*models: Model) -> list[Ready]:
    return [Ready(instance(key, of), of, None) for key, of in enumerate(models, start=1)]


def placed(
    ready: list[Ready], snapshot: Snapshot, considered: dict[int, object] | None = None
) -> dict[int, int]:
    """The worker of each that gets a place."""
    decided = decide_all(ready, snapshot, considered or {}, USUAL_GANGS)
    assert sorted(one.ready.instance.id for one in decided) == [one.instance.id for one in ready]
    return {
        one.ready.instance.id: one.decision.worker_id
        for one in decided
        if isinstance(one.decision, Placement)
    }


SMALL, LARGE = claiming(1, 5), claiming(2, 13)
TWO = [worker(key, ram=16) for key in (1, 2)]


def test_what_would_be_spread_is_packed_where_more_get_a_place_so() -> None:
    """Two small ones on one worker each would leave no room for the large one."""
    found = placed(waiting(SMALL, SMALL, LARGE), world(*TWO, SMALL, LARGE))
    assert found.keys() == {1, 2, 3} and found[1] == found[2] != found[3]


def test_what_has_a_place_one_after_the_other_is_spread() -> None:
    found = placed(waiting(SMALL, SMALL), world(*TWO, SMALL))
    assert found[1] != found[2]


def test_whoever_was_refused_before_is_not_passed_over_for_more_others() -> None:
    """A large one has waited; two small ones that come later fit in its place."""
    ready = waiting(LARGE, SMALL, SMALL)
    one = world(worker(1, ram=16), SMALL, LARGE)
    assert placed(ready, one).keys() == {2, 3}
    assert placed(ready, one, {1: None}).keys() == {1}


def test_a_higher_priority_is_not_passed_over_for_more_of_a_lower() -> None:
    first = claiming(3, 13, priority=1)
    ready = waiting(first, SMALL, SMALL)
    assert placed(ready, world(worker(1, ram=16), first, SMALL)).keys() == {1}


def test_fewer_requests_at_a_time_before_no_place() -> None:
    of, facts = model(1, cpu_offloading=False), facts_of("llama-3.1-8b")
    there = worker(1, gpus=[gpu(0, 16)])
    questions = [ask(of, facts, instance=instance(key, of)) for key in (1, 2)]
    assert len(pack(questions[:1], world(there, of))) == 1
    both = pack(questions, world(there, of))
    slots = [one.placement.claim.slots for one in both]
    assert len(both) == 2 and slots == [questions[0].demand.slot_choices[-1]] * 2


@law(25)
@given(
    rams=st.lists(st.integers(4, 24), min_size=1, max_size=4),
    sizes=st.lists(st.integers(1, 12), min_size=1, max_size=9),
)
def test_each_of_a_pack_is_found_again_where_those_before_it_have_their_places(
    rams: list[int], sizes: list[int]
) -> None:
    """So it can be claimed; and nothing is promised twice."""
    models = [claiming(key, size) for key, size in enumerate(sizes, start=1)]
    snapshot = world(*(worker(key, ram=ram) for key, ram in enumerate(rams, start=1)), *models)
    questions = [ask(of, instance=instance(of.id, of)) for of in models]
    one_by_one = len(placed(waiting(*models), snapshot))
    packed = pack(questions, snapshot)
    assert len(packed) <= one_by_one
    for one in packed:
        there = [snapshot.workers[one.placement.worker_id]]
        again = decide(one.request, snapshot, among=there)
        assert isinstance(again, Placement)
        assert attrs.evolve(again, note=one.placement.note) == one.placement
        assert one.request.instance is not None
        snapshot = snapshot.changed(attrs.evolve(one.request.instance, placement=one.placement))
    for there_id, ram in enumerate(rams, start=1):
        claimed = sum(claim.ram for _, claim in snapshot.claims_on(there_id))
        assert claimed <= max(ram - 2, 0) * GIB


async def test_a_pack_is_claimed_as_it_was_decided(cluster: Cluster, nursery: trio.Nursery) -> None:
    for name in ("a", "b"):
        await cluster.worker(name, ram=16)
    small, large = [
        await cluster.model(
            f"m{gib}",
            categories=("llm",),
            command="x {port}",
            backend="custom",
            env={"GPUSTACK_MODEL_RAM_CLAIM": str(gib * GIB)},
        )
        for gib in (5, 13)
    ]
    waits = [await cluster.instance(of) for of in (small, small, large)]
    settled = Settled(cluster)
    facts = cluster.facts()
    for service in (facts, Scheduler(cluster.store, facts)):
        await nursery.start(lambda task_status, one=service: one.run(task_status=task_status))
    await settled()
    now = [cluster.now(one) for one in waits]
    assert [one.state for one in now] == [S.SCHEDULED] * 3
    assert all(PACKED in one.state_message for one in now)
    assert len({one.worker_id for one in now[:2]}) == 1
