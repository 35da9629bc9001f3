"""Every change that is told, done, makes a place; and no smaller one of its kind does."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import attrs
from hypothesis import given
from hypothesis import strategies as st

from gpustack.domain.artifact import ModelSource, SourceKind
from gpustack.domain.device import DeviceMemory
from gpustack.domain.facts import ModelFacts
from gpustack.domain.instance import Claim, Placement
from gpustack.domain.snapshot import Snapshot
from gpustack.domain.unit import GIB, MIB
from gpustack.domain.worker import WorkerStatus
from gpustack.engines import parameters
from gpustack.policy.placement import PlacementRequest
from gpustack.policy.remedies import context
from gpustack.policy.remedy import INSTANCE, Remedy, applied
from gpustack.policy.schedule import place
from gpustack.policy.trial import Trial, all_changes
from tests.laws import law

from .chance import world_of
from .shapes import facts_of
from .worlds import ask, gpu, instance, model, worker, world

SMALL, MIDDLE = map(facts_of, ("llama-3.2-1b", "llama-3.1-8b"))
WIDE = attrs.evolve(facts_of("llama-3.1-8b", "f16"), quantisation="F16")


def known(source: ModelSource) -> ModelFacts | None:
    """What the server has read: the header of every model here, all of one kind."""
    return SMALL


def told(question: PlacementRequest, snapshot: Snapshot) -> tuple[Trial, tuple[Remedy, ...]] | None:
    outcome = place(question, snapshot)
    if isinstance(outcome, Placement):
        return None
    trial = Trial(question, snapshot, outcome.reasons, known)
    return trial, all_changes(trial)


def fits(remedy: Remedy, trial: Trial) -> bool:
    after = applied(remedy, trial.request, trial.snapshot, known)
    return isinstance(place(*after), Placement)


def with_parameter(flag: str, value: int, trial: Trial) -> bool:
    given = (*trial.request.model.backend_parameters, f"{flag}={value}")
    of = attrs.evolve(trial.request.model, backend_parameters=given)
    return isinstance(place(attrs.evolve(trial.request, model=of), trial.snapshot), Placement)


def in_place(remedy: Remedy, **fields: Any) -> Remedy:
    """The same with other numbers of what is added."""
    assert remedy.added is not None
    return attrs.evolve(remedy, added=attrs.evolve(remedy.added, **fields))


def check_context(remedy: Remedy, trial: Trial) -> None:
    (change,) = remedy.changes
    size = parameters.number_of(change.value, "--ctx-size", "--max-model-len")
    flag = "--max-model-len" if trial.request.engine_name == "vllm" else "--ctx-size"
    asked = parameters.number_of(trial.request.model.backend_parameters, "-c", "--ctx-size") or 8192
    assert size is not None
    more = size + context.STEP
    while more < asked:
        assert not with_parameter(flag, more, trial)
        more *= 2


def check_stop(remedy: Remedy, trial: Trial) -> None:
    ended = next(change.id for change in remedy.changes if change.of == INSTANCE)

    def size(key: int) -> tuple[int, int]:
        there = trial.snapshot.instances[key].placement
        assert there is not None
        return there.claim.ram + sum(there.claim.vram.values()), key

    for key, other in trial.snapshot.instances.items():
        if other.placement is not None and other.deleted_at is None and size(key) < size(ended):
            without = trial.snapshot.changed(without=[key])
            assert not isinstance(place(trial.request, without), Placement)


def check_move(remedy: Remedy, trial: Trial) -> None:
    """This replica and the successor of the one that is ended both have a place."""
    (change,) = remedy.changes
    request, after = applied(remedy, trial.request, trial.snapshot, known)
    own = place(request, after)
    moved = trial.snapshot.instances[change.id]
    assert request.instance is not None and isinstance(own, Placement)
    after = after.changed(attrs.evolve(request.instance, placement=own))
    successor = attrs.evolve(moved, id=9999, placement=None)
    of = trial.snapshot.models[moved.model_id]
    assert isinstance(place(ask(of, SMALL, instance=successor), after), Placement)


def check_machine(remedy: Remedy, trial: Trial) -> None:
    added = remedy.added
    if added is None:
        return
    if added.vram is not None:
        of = attrs.evolve(trial.request.model, cpu_offloading=False)
        trial = attrs.evolve(trial, request=attrs.evolve(trial.request, model=of))
        assert not fits(in_place(remedy, vram=added.vram - MIB), trial)
    assert added.ram is not None
    assert not fits(in_place(remedy, ram=added.ram - MIB), trial)


def check_gpu(remedy: Remedy, trial: Trial) -> None:
    added = remedy.added
    assert added is not None and added.vram is not None
    if added.like is None:
        assert not fits(in_place(remedy, vram=added.vram - MIB), trial)


def check_more_workers(remedy: Remedy, trial: Trial) -> None:
    assert remedy.added is not None
    if remedy.added.count > 1:
        assert not fits(in_place(remedy, count=remedy.added.count - 1), trial)


def check_reserve(remedy: Remedy, trial: Trial) -> None:
    (change,) = remedy.changes
    now = trial.snapshot.workers[change.id].system_reserved
    for name, before in (("ram", now.ram), ("vram", now.vram)):
        if change.value[name] + MIB <= before:
            more = attrs.evolve(change, value={**change.value, name: change.value[name] + MIB})
            assert not fits(attrs.evolve(remedy, changes=(more,)), trial)


def check_slots(remedy: Remedy, trial: Trial) -> None:
    (change,) = remedy.changes
    count = parameters.number_of(change.value, "--parallel")
    asked = parameters.number_of(trial.request.model.backend_parameters, "-np")
    cells = parameters.number_of(change.value, "--ctx-size")
    assert count is not None and asked is not None
    if count + 1 < asked:
        more = parameters.with_value(change.value, ("--parallel",), "--parallel", str(count + 1))
        if cells is not None:
            larger = str(cells // count * (count + 1))
            more = parameters.with_value(more, ("--ctx-size",), "--ctx-size", larger)
        assert not fits(attrs.evolve(remedy, changes=(attrs.evolve(change, value=more),)), trial)


def check_strangers(remedy: Remedy, trial: Trial) -> None:
    change, *others = remedy.changes
    if others:
        assert all(one.value["bytes"] == 0 for one in remedy.changes)
        return
    device = trial.snapshot.workers[change.id].device(change.value["index"])
    assert device is not None and change.value["bytes"] < (device.memory.foreign or 0)
    if change.value["bytes"] + MIB < (device.memory.foreign or 0):
        more = attrs.evolve(change, value={**change.value, "bytes": change.value["bytes"] + MIB})
        assert not fits(attrs.evolve(remedy, changes=(more,)), trial)


CHECKS: dict[str, Callable[[Remedy, Trial], None]] = {
    "context": check_context,
    "stop": check_stop,
    "move": check_move,
    "machine": check_machine,
    "gpu": check_gpu,
    "more_workers": check_more_workers,
    "reserve": check_reserve,
    "slots": check_slots,
    "strangers": check_strangers,
}
NO_PLACE = {"report", "replicas"}
"""What is told without a place: nothing is known yet, or nothing need wait."""


@law(10)
@given(seed=st.integers(0, 1 << 32))
def test_every_change_done_makes_a_place_and_no_smaller_one_of_its_kind(seed: int) -> None:
    here = world_of(seed)
    found = told(here.request, here.snapshot)
    if found is None:
        return
    trial, remedies = found
    kinds = [remedy.kind for remedy in remedies]
    assert len(kinds) == len(set(kinds))
    for remedy in remedies:
        assert remedy.sentence and "\n" not in remedy.sentence
        if remedy.kind in NO_PLACE or not (remedy.changes or remedy.added):
            continue
        assert fits(remedy, trial), remedy
        CHECKS.get(remedy.kind, lambda remedy, trial: None)(remedy, trial)


def only(kind: str, trial: Trial) -> Remedy:
    (found,) = (remedy for remedy in all_changes(trial) if remedy.kind == kind)
    return found


def test_the_largest_other_file_of_the_repository_that_fits_is_told_where_its_header_was_read() -> None:
    repo = {"kind": SourceKind.HUGGING_FACE, "huggingface_repo_id": "org/m"}
    files = {
        name: ModelSource(**repo, huggingface_filename=f"m-{name}.gguf") for name in ("F16", "Q8", "Q4", "Q2")
    }
    read = {files["F16"].index: WIDE, files["Q4"].index: MIDDLE}
    read[files["Q8"].index] = facts_of("llama-3.1-8b", "q8_0")
    of = model(source=files["F16"])
    others = [model(key, source=files[name]) for key, name in ((2, "Q8"), (3, "Q4"), (4, "Q2"))]
    question = ask(of, WIDE, instance=instance(1, of))
    trial = Trial(question, world(worker(ram=10), of, *others), (), lambda source: read.get(source.index))
    remedy = only("quantisation", trial)
    assert [(change.field, change.value) for change in remedy.changes] == [
        ("huggingface_filename", "m-Q4.gguf")
    ]
    assert remedy.by_api and remedy.sentence.startswith("use m-Q4.gguf instead")


def test_programs_of_others_are_named_with_how_much_of_theirs_is_in_the_way() -> None:
    of = model(cpu_offloading=False)
    there = worker(gpus=[gpu(0, memory=DeviceMemory(total=24 * GIB, foreign=20 * GIB))])
    remedy = only("strangers", Trial(ask(of, MIDDLE, instance=instance(8, of)), world(there, of), (), known))
    assert remedy.sentence.startswith("end programs that use ")
    assert remedy.sentence.endswith(" of GPU 0 of worker node-a, not GPUStack's")
    assert not remedy.by_api
    (change,) = remedy.changes
    assert 0 < change.value["bytes"] < 20 * GIB


def test_what_fits_elsewhere_is_moved_rather_than_stopped() -> None:
    of, other = model(), model(2)
    held = instance(7, other, on=1, claim=Claim(vram={0: 12 * GIB}))
    there = [worker(1, gpus=[gpu(0, 16)]), worker(2, gpus=[gpu(0, 6)])]
    question = ask(attrs.evolve(of, cpu_offloading=False), MIDDLE, instance=instance(8, of))
    trial = Trial(question, world(*there, of, other, held), (), known)
    remedy = only("move", trial)
    assert remedy.sentence.startswith("move m2-7 (12.0 GiB) to worker node-b, GPU 0 (")
    assert [(change.of, change.id, change.field) for change in remedy.changes] == [
        ("model_instance", 7, "removed")
    ]
    stop = only("stop", trial)
    assert [(change.of, change.field, change.value) for change in stop.changes] == [
        ("model_instance", "removed", True),
        ("model", "replicas", 0),
    ]


def test_one_of_higher_priority_is_stopped_only_where_no_other_would_do_and_that_is_said() -> None:
    of, high, low = model(cpu_offloading=False), model(2, priority=5), model(3)
    less = instance(7, high, on=1, claim=Claim(vram={0: 11 * GIB}))
    more = instance(8, low, on=2, claim=Claim(vram={0: 12 * GIB}))
    there = [worker(1, gpus=[gpu(0, 16)]), worker(2, gpus=[gpu(0, 16)])]
    question = ask(of, MIDDLE, instance=instance(9, of))
    everything = (*there, of, high, low)
    both = only("stop", Trial(question, world(*everything, less, more), (), known))
    assert both.sentence == "stop m3-8 (12.0 GiB) on node-b"
    there[1] = attrs.evolve(there[1], cordoned=True)
    alone = only("stop", Trial(question, world(*there, of, high, low, less, more), (), known))
    assert alone.sentence == "stop m2-7 (11.0 GiB, of higher priority) on node-a"


def test_a_worker_that_has_just_joined_is_waited_for() -> None:
    of = model()
    outcome = place(ask(of, SMALL, instance=instance(1, of)), world(worker(status=WorkerStatus()), of))
    assert not isinstance(outcome, Placement)
    assert outcome.sentence == (
        "Worker node-a has not reported yet which engines it has. To make it fit: wait until worker node-a has "
        "reported what it has"
    )


def test_nothing_of_a_field_that_is_not_changed_is_lost() -> None:
    given = ("-ngl", "5", "--ctx-size 65536", "--override-kv a=str:b c", "--jinja")
    changed = parameters.with_value(given, ("-c", "--ctx-size"), "--ctx-size", "1024")
    assert changed == ("-ngl=5", "--override-kv=a=str:b c", "--jinja", "--ctx-size=1024")
    assert parameters.with_value(given[:1], ("-c",), "-c", "1") == ("-ngl", "-c=1")
