"""What the loss of a worker would do: found out by placing what ran there on the others, in order of priority."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from gpustack.domain.instance import Claim, ModelInstance
from gpustack.domain.model import Model
from gpustack.domain.snapshot import Snapshot
from gpustack.domain.unit import GIB
from gpustack.policy.placement import PlacementRequest
from gpustack.policy.survival import ModelLoss, Rooms, WorkerLoss, loss_of
from tests.laws import law

from .shapes import facts_of
from .worlds import RPC_BUILD, ask, gpu, instance, model, worker, world

FACTS = facts_of("llama-3.1-8b")
HELD = Claim(ram=GIB, vram={0: 9 * GIB})


def asked(one: Model, of: ModelInstance, snapshot: Snapshot) -> PlacementRequest:
    return ask(one, FACTS, instance=of)


def node(key: int, gib: int = 12) -> Any:
    return worker(key, ram=8, gpus=[gpu(0, gib)], build=RPC_BUILD)


def only_on_gpus(key: int, **fields: Any) -> Model:
    usual = {"cpu_offloading": False, "distributed_inference_across_workers": False}
    return model(key, **{**usual, **fields})


def names(losses: Iterable[ModelLoss]) -> list[tuple[str, int, int]]:
    return [(one.model, one.lost, one.left) for one in losses]


def found(snapshot: Snapshot, key: int = 1) -> WorkerLoss:
    tried = loss_of(key, snapshot, asked)
    assert loss_of(key, snapshot, asked, Rooms(snapshot, asked)) == tried, "counted or tried, it is the same"
    return tried


def test_a_model_with_room_elsewhere_survives_and_one_without_does_not() -> None:
    first, second, m = node(1), node(2), only_on_gpus(1)
    running = instance(1, m, on=first, claim=HELD)
    with_room = found(world(first, second, m, running))
    assert names(with_room.keeps) == [("m1", 0, 1)] and not with_room.stops
    alone = found(world(first, m, running))
    assert names(alone.stops) == [("m1", 1, 0)] and not alone.keeps
    other = only_on_gpus(2)
    full = world(first, second, m, other, running, instance(2, other, on=second, claim=HELD))
    assert names(found(full).stops) == [("m1", 1, 0)] and names(found(full, 2).stops) == [("m2", 1, 0)]
    assert found(world(first, second, m)) == WorkerLoss(worker_id=1, worker="node-a")


def test_a_replica_that_serves_elsewhere_keeps_the_model_with_fewer() -> None:
    first, second, m = node(1), node(2), only_on_gpus(1)
    both = world(
        first, second, m, instance(1, m, on=first, claim=HELD), instance(2, m, on=second, claim=HELD)
    )
    assert names(found(both).shrinks) == [("m1", 1, 1)] and not found(both).stops


def test_the_highest_priority_gets_the_room_that_there_is() -> None:
    first, second = worker(1, ram=8, gpus=[gpu(0, 12), gpu(1, 12)]), node(2)
    low, high = only_on_gpus(1), only_on_gpus(2, priority=5)
    on_other = Claim(ram=GIB, vram={1: 9 * GIB})
    there = world(
        first, second, low, high,
        instance(1, low, on=first, claim=HELD), instance(2, high, on=first, claim=on_other),
    )  # fmt: skip
    assert names(found(there).keeps) == [("m2", 0, 1)] and names(found(there).stops) == [("m1", 1, 0)]


def test_one_that_may_preempt_takes_the_place_of_another_which_then_stops() -> None:
    first, second = node(1), node(2)
    high, low = only_on_gpus(1, priority=5, preempts=True), only_on_gpus(2)
    there = world(
        first, second, high, low,
        instance(1, high, on=first, claim=HELD), instance(2, low, on=second, claim=HELD),
    )  # fmt: skip
    assert names(found(there).keeps) == [("m1", 0, 1)] and names(found(there).stops) == [("m2", 1, 0)]


def test_what_is_not_known_of_a_model_is_said_and_counts_as_nothing() -> None:
    first, second, m = node(1), node(2), only_on_gpus(1)
    there = world(first, second, m, instance(1, m, on=first, claim=HELD))
    assert loss_of(1, there, lambda one, of, there: None).unknown == ("m1",)
    refused = loss_of(1, there, lambda one, of, there: "its file is gone")
    assert names(refused.stops) == [("m1", 1, 0)]


@law(15)
@given(
    held=st.lists(st.tuples(st.integers(1, 3), st.integers(1, 4)), min_size=1, max_size=6),
    sizes=st.tuples(*[st.integers(9, 40)] * 4),
    divided=st.sampled_from([False, None]),
)
def test_a_worker_more_never_makes_a_loss_worse(
    held: list[tuple[int, int]], sizes: tuple[int, ...], divided: bool | None
) -> None:
    workers = [node(key, size) for key, size in enumerate(sizes, start=1)]
    models = [only_on_gpus(key, distributed_inference_across_workers=divided) for key in (1, 2, 3)]
    running, used = [], dict.fromkeys(range(1, 5), 0)
    for number, (of, on) in enumerate(held, start=1):
        used[on] += 9
        if used[on] < sizes[on - 1]:
            running.append(instance(number, models[of - 1], on=workers[on - 1], claim=HELD))
    less, more = world(*workers, *models, *running), world(*workers, node(5, 100), *models, *running)
    for key in range(1, 5):
        before, after = found(less, key), found(more, key)
        assert {one.model for one in after.stops} <= {one.model for one in before.stops}
