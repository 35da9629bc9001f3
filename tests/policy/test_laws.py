"""Laws of placement that hold in every world."""

from __future__ import annotations

from typing import Any

import attrs
from hypothesis import given
from hypothesis import strategies as st

from gpustack.domain.affinity import HOSTNAME, AntiAffinity, AntiAffinityTerm
from gpustack.domain.artifact import FileState, ModelFile
from gpustack.domain.device import DeviceLink, DeviceMemory, LinkKind
from gpustack.domain.instance import ModelInstance, Placement, claims_of
from gpustack.domain.model import PlacementStrategy
from gpustack.domain.snapshot import Snapshot
from gpustack.domain.taint import Taint, TaintEffect, Toleration, untolerated
from gpustack.domain.unit import GIB
from gpustack.domain.worker import (
    Condition,
    Filesystem,
    Memory,
    ModelDisk,
    SystemReserved,
    Worker,
    WorkerState,
)
from gpustack.policy.decision import decide
from gpustack.policy.placement import PlacementRequest
from gpustack.policy.schedule import place
from tests.laws import law

from .shapes import facts_of
from .test_equal_gang import BUILD as VLLM
from .test_equal_gang import ON_CPU
from .test_safetensors_placement import SOURCE, facts
from .worlds import CPU_BUILD, CUDA_BUILD, RPC_BUILD, ask, gpu, instance, model, worker, world

OTHER_RPC = attrs.evolve(RPC_BUILD, digest="e" * 64)
SHAPES = ["qwen3-0.6b", "llama-3.2-1b", "llama-3.1-8b", "gemma-3-4b", "llama-3.3-70b"]


def _links(index: int, kind: LinkKind | None, count: int) -> tuple[DeviceLink, ...]:
    others = tuple(other for other in range(count) if other != index)
    return () if kind is None or not others else (DeviceLink(kind=kind, indexes=others),)


@st.composite
def workers(draw: st.DrawFn, key: int) -> Worker:
    unified = draw(st.booleans())
    ram = draw(st.integers(2, 96))
    sizes = draw(st.lists(st.integers(2, 48), max_size=1 if unified else 4))
    unclaimed = st.sampled_from([None, None, 0, GIB, 3 * GIB])
    kinds = st.sampled_from([None, None, LinkKind.FABRIC, LinkKind.BRIDGE, LinkKind.SYSTEM])
    gpus = [
        gpu(
            index,
            links=_links(index, draw(kinds), len(sizes)),
            memory=DeviceMemory(
                total=(ram if unified else gib) * GIB,
                is_unified_memory=unified,
                foreign=draw(unclaimed),
                overrun=draw(unclaimed),
            ),
            name=draw(st.sampled_from(["G", "G", "H"])),
            slice_profile=draw(st.sampled_from([None, None, None, "1g.18gb"])),
        )
        for index, gib in enumerate(sizes)
    ]
    made = worker(
        key,
        ram=ram,
        gpus=gpus,
        build=draw(st.sampled_from([CPU_BUILD, CUDA_BUILD, RPC_BUILD, RPC_BUILD, OTHER_RPC])),
        cordoned=draw(st.integers(0, 4)) == 0,
        labels=draw(st.sampled_from([{}, {"zone": "a"}])),
        system_reserved=SystemReserved(ram=draw(st.integers(0, 3)) * GIB, vram=draw(st.integers(0, 2)) * GIB),
        condition=Condition(state=draw(st.sampled_from(list(WorkerState)))),
        taints=draw(st.sampled_from([(), (), *((Taint(key="a", effect=effect),) for effect in TaintEffect)])),
    )
    memory = Memory(total=ram * GIB, is_unified_memory=unified)
    vllm = draw(st.sampled_from([VLLM, VLLM, attrs.evolve(VLLM, version="0.31.0"), ON_CPU]))
    engines = (*made.status.engines, vllm)
    gib = draw(st.sampled_from([None, None, 10, 50, 200]))
    disk = Filesystem(name="/", mount_point="/", available=None if gib is None else gib * GIB)
    status = attrs.evolve(
        made.status,
        memory=memory,
        engines=engines,
        filesystem=(disk,),
        model_disk=ModelDisk(mount_point="/", evicts=draw(st.booleans())),
    )
    return attrs.evolve(made, status=status)


@st.composite
def clusters(draw: st.DrawFn) -> list[Worker]:
    return [draw(workers(key)) for key in range(1, draw(st.integers(1, 4)) + 1)]


OWN = AntiAffinityTerm()
apart = st.sampled_from(
    [
        None,
        None,
        AntiAffinity(required=(OWN,)),
        AntiAffinity(required=(AntiAffinityTerm(models=("m*",), topology_key="zone"),)),
        AntiAffinity(preferred=(OWN, AntiAffinityTerm(match_labels={"team": "a"}))),
    ]
)
labelled = st.sampled_from([{}, {"team": "a"}])
tolerated = st.sampled_from(
    [(), (Toleration(key="a", effect=TaintEffect.NO_SCHEDULE),), (Toleration(key="a"),)]
)


wishes: st.SearchStrategy[dict[str, Any]] = st.fixed_dictionaries(
    {
        "shape": st.sampled_from(SHAPES),
        "placement_strategy": st.sampled_from(list(PlacementStrategy)),
        "cpu_offloading": st.sampled_from([None, True, False]),
        "distributed_inference_across_workers": st.sampled_from([None, None, True, False]),
        "worker_selector": st.sampled_from([{}, {}, {"zone": "a"}]),
        "tolerations": tolerated,
        "anti_affinity": apart,
        "labels": labelled,
        "backend_parameters": st.sampled_from(
            [(), ("-ngl", "5"), ("-ngl=0",), ("-ts", "2,1"), ("-c", "32768")]
        ),
    }
)


def deployed(key: int, wish: dict[str, Any]) -> PlacementRequest:
    fields = dict(wish)
    shape = fields.pop("shape")
    return ask(model(key, **fields), facts_of(shape))


equal_wishes: st.SearchStrategy[dict[str, Any]] = st.fixed_dictionaries(
    {
        "gib": st.sampled_from([4, 16, 40, 60, 120]),
        "tolerations": tolerated,
        "anti_affinity": apart,
        "placement_strategy": st.sampled_from(list(PlacementStrategy)),
        "cpu_offloading": st.sampled_from([None, False]),
        "distributed_inference_across_workers": st.sampled_from([None, None, True, False]),
        "backend_parameters": st.sampled_from([(), (), ("-tp=2",), ("-tp=2", "-pp=2"), ("-pp=3",)]),
    }
)


def equal_deployed(key: int, wish: dict[str, Any]) -> PlacementRequest:
    fields = dict(wish)
    gib = fields.pop("gib")
    known = attrs.evolve(facts(gib), file_size=gib * GIB)
    return ask(model(key, source=SOURCE, backend="vllm", **fields), known, engine_name="vllm")


def grown(snapshot: Snapshot, *added: ModelInstance) -> Snapshot:
    records = {**snapshot.instances, **{record.id: record for record in added}}
    return attrs.evolve(snapshot, tables={**snapshot.tables, "model_instances": records})


def _some(wished: list[dict[str, Any]]) -> list[PlacementRequest]:
    return [
        equal_deployed(key, wish) if "gib" in wish else deployed(key, wish)
        for key, wish in enumerate(wished, start=1)
    ]


@law(20)
@given(cluster=clusters(), wanted=st.lists(wishes | equal_wishes, max_size=8))
def test_nothing_is_ever_promised_twice(cluster: list[Worker], wanted: list[dict[str, Any]]) -> None:
    questions = _some(wanted)
    snapshot = world(*cluster, *(one.model for one in questions))
    for question in questions:
        outcome = place(question, snapshot)
        if isinstance(outcome, Placement):
            _assert_allowed(question, outcome, snapshot)
            _assert_apart(question, outcome, snapshot)
            placed = attrs.evolve(instance(question.model.id, question.model), placement=outcome)
            snapshot = grown(snapshot, placed)
    for there in cluster:
        _assert_within_bounds(there, snapshot)


def _assert_allowed(question: PlacementRequest, outcome: Placement, snapshot: Snapshot) -> None:
    """Every member is where the deployment and the workers allow it, and members can work together."""
    members = [outcome.share(number) for number in range(1 + len(outcome.subordinates))]
    hosts = [snapshot.workers[member.worker_id] for member in members]
    for member, host in zip(members, hosts, strict=True):
        assert host.condition.state is WorkerState.READY
        assert host.takes_instances
        assert not untolerated(
            host.taints, question.model.tolerations, TaintEffect.NO_SCHEDULE, TaintEffect.NO_EXECUTE
        )
        assert question.model.worker_selector.items() <= host.labels.items()
        assert set(member.gpu_indexes) == set(member.claim.vram)
    if not outcome.subordinates:
        return
    assert question.model.distributed_inference_across_workers is not False
    builds = [question.build_on(host) for host in hosts]
    assert len({(build.version, build.digest) for build in builds if build is not None}) == 1
    if question.demand.equal:
        assert len({host.id for host in hosts}) == len(hosts)
        assert len({len(member.gpu_indexes) for member in members}) == 1
        count = sum(len(member.gpu_indexes) or 1 for member in members)
        assert not question.demand.device_counts or count in question.demand.device_counts
        assert len({host.status.gpu_devices[0].type for host in hosts if members[0].gpu_indexes}) <= 1
    else:
        assert all(member.worker_id != outcome.worker_id for member in members[1:])
        assert len(outcome.claim.tensor_split) == len(outcome.gpu_indexes) + len(outcome.subordinates)
        assert len(outcome.subordinates) <= question.gangs.most_remote


def _assert_apart(question: PlacementRequest, outcome: Placement, before: Snapshot) -> None:
    """It is beside nothing that it, or what is there, must not be beside."""
    mine = question.model
    here = {before.workers[key].id for key, _ in claims_of(outcome)}
    for other in before.instances.values():
        theirs = before.models[other.model_id]
        assert other.placement is not None
        there = {key for key, _ in claims_of(other.placement)}
        for one, another in ((mine, theirs), (theirs, mine)):
            for term in () if one.anti_affinity is None else one.anti_affinity.required:
                is_meant = one.id == another.id if term.is_own else term.names(another.name, another.labels)
                if is_meant:
                    assert not _shared(term, here, there, before)


def _shared(term: AntiAffinityTerm, here: set[int], there: set[int], snapshot: Snapshot) -> bool:
    if term.topology_key == HOSTNAME:
        return bool(here & there)
    values = [
        {value for key in keys if (value := snapshot.workers[key].labels.get(term.topology_key))}
        for keys in (here, there)
    ]
    return bool(values[0] & values[1])


@st.composite
def model_files(draw: st.DrawFn, cluster: list[Worker], wanted: list[PlacementRequest]) -> list[ModelFile]:
    """Files of the models on some of the workers."""
    found = []
    for key in range(1, draw(st.integers(0, 4)) + 1):
        source = draw(st.sampled_from(wanted)).model.source
        there = draw(st.sampled_from(cluster))
        state = draw(st.sampled_from(list(FileState)))
        found.append(
            ModelFile(
                id=key,
                worker_id=there.id,
                source=source,
                source_index=source.index,
                state=state,
                download_progress=draw(st.sampled_from([None, 10.0, 60.0])),
            )
        )
    return found


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


@law(12)
@given(cluster=clusters(), wish=wishes | equal_wishes, shuffle=st.randoms(use_true_random=False))
def test_the_same_world_gets_the_same_answer_in_whatever_order_it_is_told(
    cluster: list[Worker], wish: dict[str, Any], shuffle: Any
) -> None:
    (question,) = _some([wish])
    first = place(question, world(*cluster))
    turned = list(cluster)
    shuffle.shuffle(turned)
    assert place(question, world(*turned)) == first


@law(12)
@given(cluster=clusters(), wish=wishes | equal_wishes)
def test_a_place_that_is_decided_again_among_its_workers_alone_is_there(
    cluster: list[Worker], wish: dict[str, Any]
) -> None:
    """The claiming transaction does that: else it would refuse for ever what the decision offers."""
    (question,) = _some([wish])
    snapshot = world(*cluster)
    first = decide(question, snapshot)
    if isinstance(first, Placement):
        there = {worker_id for worker_id, _ in claims_of(first)}
        again = decide(question, snapshot, among=[snapshot.workers[key] for key in sorted(there)])
        assert isinstance(again, Placement)


@law(12)
@given(cluster=clusters(), wish=wishes | equal_wishes)
def test_whoever_waits_is_told_why_in_one_sentence(cluster: list[Worker], wish: dict[str, Any]) -> None:
    (question,) = _some([wish])
    outcome = place(question, world(*cluster))
    if not isinstance(outcome, Placement):
        assert outcome.reasons
        assert outcome.smallest_change
        assert "\n" not in outcome.sentence
        assert outcome.sentence[0].isupper()
