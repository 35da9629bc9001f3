"""Laws of placement that hold in every world."""

from __future__ import annotations

from typing import Any

import attrs
from hypothesis import given, settings
from hypothesis import strategies as st

from gpustack.domain.device import DeviceMemory
from gpustack.domain.instance import ModelInstance, Placement
from gpustack.domain.model import Model, PlacementStrategy
from gpustack.domain.snapshot import Snapshot
from gpustack.domain.unit import GIB
from gpustack.domain.worker import Condition, Memory, SystemReserved, Worker, WorkerState
from gpustack.policy.schedule import place

from .shapes import facts_of
from .worlds import CPU_BUILD, CUDA_BUILD, ask, gpu, instance, model, worker, world

SHAPES = ["qwen3-0.6b", "llama-3.2-1b", "llama-3.1-8b", "gemma-3-4b", "llama-3.3-70b"]


@st.composite
def workers(draw: st.DrawFn, key: int) -> Worker:
    unified = draw(st.booleans())
    ram = draw(st.integers(2, 96))
    sizes = draw(st.lists(st.integers(2, 48), max_size=1 if unified else 4))
    gpus = [
        gpu(index, memory=DeviceMemory(total=(ram if unified else gib) * GIB, is_unified_memory=unified))
        for index, gib in enumerate(sizes)
    ]
    made = worker(
        key,
        ram=ram,
        gpus=gpus,
        build=draw(st.sampled_from([CPU_BUILD, CUDA_BUILD])),
        cordoned=draw(st.integers(0, 4)) == 0,
        labels=draw(st.sampled_from([{}, {"zone": "a"}])),
        system_reserved=SystemReserved(ram=draw(st.integers(0, 3)) * GIB, vram=draw(st.integers(0, 2)) * GIB),
        condition=Condition(state=draw(st.sampled_from(list(WorkerState)))),
    )
    memory = Memory(total=ram * GIB, is_unified_memory=unified)
    return attrs.evolve(made, status=attrs.evolve(made.status, memory=memory))


@st.composite
def clusters(draw: st.DrawFn) -> list[Worker]:
    return [draw(workers(key)) for key in range(1, draw(st.integers(1, 4)) + 1)]


wishes: st.SearchStrategy[dict[str, Any]] = st.fixed_dictionaries(
    {
        "shape": st.sampled_from(SHAPES),
        "placement_strategy": st.sampled_from(list(PlacementStrategy)),
        "cpu_offloading": st.sampled_from([None, True, False]),
        "worker_selector": st.sampled_from([{}, {}, {"zone": "a"}]),
        "backend_parameters": st.sampled_from(
            [(), ("-ngl", "5"), ("-ngl=0",), ("-ts", "2,1"), ("-c", "32768")]
        ),
    }
)


def deployed(key: int, wish: dict[str, Any]) -> tuple[Model, str]:
    fields = dict(wish)
    shape = fields.pop("shape")
    return model(key, **fields), shape


def grown(snapshot: Snapshot, *added: ModelInstance) -> Snapshot:
    records = {**snapshot.instances, **{record.id: record for record in added}}
    return attrs.evolve(snapshot, tables={**snapshot.tables, "model_instances": records})


@settings(max_examples=60, deadline=None)
@given(cluster=clusters(), wanted=st.lists(wishes, max_size=8))
def test_nothing_is_ever_promised_twice(cluster: list[Worker], wanted: list[dict[str, Any]]) -> None:
    snapshot = world(*cluster)
    for key, wish in enumerate(wanted, start=1):
        of, shape = deployed(key, wish)
        outcome = place(ask(of, facts_of(shape)), snapshot)
        if isinstance(outcome, Placement):
            where = snapshot.workers[outcome.worker_id]
            assert where.condition.state is WorkerState.READY
            assert not where.cordoned
            assert of.worker_selector.items() <= where.labels.items()
            assert set(outcome.gpu_indexes) == set(outcome.claim.vram)
            snapshot = grown(snapshot, attrs.evolve(instance(key, of), placement=outcome))
    for there in cluster:
        _assert_within_bounds(there, snapshot)


def _assert_within_bounds(there: Worker, snapshot: Snapshot) -> None:
    claims = [claim for _, claim in snapshot.claims_on(there.id)]
    ram = sum(claim.ram for claim in claims)
    vram: dict[int, int] = {}
    for claim in claims:
        for index, size in claim.vram.items():
            vram[index] = vram.get(index, 0) + size
    total = there.status.memory.total or 0
    if there.status.memory.is_unified_memory:
        ram += sum(vram.values())
    assert not ram or ram + there.system_reserved.ram <= total
    for index, size in vram.items():
        device = there.device(index)
        assert device is not None
        assert size + there.system_reserved.vram <= (device.memory.total or 0)


@settings(max_examples=40, deadline=None)
@given(cluster=clusters(), wish=wishes, shuffle=st.randoms(use_true_random=False))
def test_the_same_world_gets_the_same_answer_in_whatever_order_it_is_told(
    cluster: list[Worker], wish: dict[str, Any], shuffle: Any
) -> None:
    of, shape = deployed(1, wish)
    first = place(ask(of, facts_of(shape)), world(*cluster))
    turned = list(cluster)
    shuffle.shuffle(turned)
    assert place(ask(of, facts_of(shape)), world(*turned)) == first


@settings(max_examples=40, deadline=None)
@given(cluster=clusters(), wish=wishes)
def test_whoever_waits_is_told_why_in_one_sentence(cluster: list[Worker], wish: dict[str, Any]) -> None:
    of, shape = deployed(1, wish)
    outcome = place(ask(of, facts_of(shape)), world(*cluster))
    if not isinstance(outcome, Placement):
        assert outcome.reasons
        assert outcome.smallest_change
        assert "\n" not in outcome.sentence
        assert outcome.sentence[0].isupper()
