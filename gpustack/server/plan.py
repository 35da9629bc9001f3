"""Plans: what changes of deployments and workers would lead to, asked of the real decisions before anything is done."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from functools import partial

import attrs
import orjson
import trio

from gpustack.domain.artifact import FileState, ModelFile, ModelSource, SourceKind
from gpustack.domain.document import converter
from gpustack.domain.facts import ModelFacts
from gpustack.domain.instance import ModelInstance, Placement, claims_of
from gpustack.domain.model import SPEC_FIELDS, Model
from gpustack.domain.snapshot import Snapshot
from gpustack.domain.worker import Worker
from gpustack.errors import BadRequest, NotFound
from gpustack.nursery.limiter import threads
from gpustack.policy.explain import explain
from gpustack.policy.explain_memory import told
from gpustack.policy.location import where
from gpustack.policy.placement import USUAL_GANGS, GangSettings
from gpustack.policy.remedy import Remedy
from gpustack.policy.what_if import supposed_worker, with_drained, with_workers, without_workers
from gpustack.policy.worker_class import classes_of
from gpustack.server.decisions import has_files
from gpustack.server.facts import FactsCache, FactsResult
from gpustack.server.simulation import Simulation, simulate
from gpustack.text import washed

READ_WITHIN = 15.0
"""Seconds that a plan waits for headers; reading goes on for whoever asks next."""
MOST_ADDED = 100
_READINGS = 3
"""How often headers are read for one plan: what they say may bring up further models."""
_MOST_REMEDIED = 8
"""Models of which it is sought what would give their replicas a place: each takes many trials."""
_PLANNING = threads("plans", 1)


@attrs.frozen(kw_only=True)
class PlanQuestion:
    """What is asked. Workers by name; ``add`` as ``policy.what_if`` reads them; ``remedies``: what would help, too."""

    add: tuple[str, ...] = ()
    lose: tuple[str, ...] = ()
    drain: tuple[str, ...] = ()
    remedies: bool = False


@attrs.frozen(kw_only=True)
class PlannedFetch:
    """Files that a worker would fetch. ``seconds`` at the speed of what it fetches now; ``None`` where not known."""

    worker: str
    bytes: int | None = None
    seconds: float | None = None


@attrs.frozen(kw_only=True)
class PlannedPlacement:
    """An instance that would come to a place. ``instance`` is ``None`` for one that does not exist yet; ``ram`` and
    ``vram`` are bytes of all its members; ``came_from`` is where it is now."""

    model: str
    instance: str | None = None
    place: str
    worker: str
    gpu_indexes: tuple[int, ...] = ()
    ram: int
    vram: int
    note: str = ""
    came_from: str | None = None
    memory: tuple[str, ...] = ()
    """How the memory comes about, a sentence a term."""
    fetches: tuple[PlannedFetch, ...] = ()


@attrs.frozen(kw_only=True)
class PlannedEnd:
    """An instance that would end, and why. ``place`` is where it is now."""

    model: str
    instance: str
    place: str | None = None
    why: str


@attrs.frozen(kw_only=True)
class PlannedWait:
    """An instance that would have no place, and why. ``stopped``: it has one now, ``place``. ``changes``, sought where
    asked, and for the first instance of a model: the smallest of each kind that would give it one."""

    model: str
    instance: str | None = None
    stopped: bool = False
    place: str | None = None
    why: str
    changes: tuple[Remedy, ...] = ()


@attrs.frozen(kw_only=True)
class ModelOutlook:
    """How many instances of a model have a place: how many are wanted, now, and then."""

    model: str
    wanted: int
    now: int
    then: int


@attrs.frozen(kw_only=True)
class ClusterPlan:
    """What would come of it all. ``rests_on``: a digest of each thing that it depends on, by what that is;
    ``decisions``: one of what was decided."""

    placements: tuple[PlannedPlacement, ...]
    ends: tuple[PlannedEnd, ...]
    waits: tuple[PlannedWait, ...]
    models: tuple[ModelOutlook, ...]
    remarks: tuple[str, ...]
    rests_on: Mapping[str, str]
    decisions: str


async def make_plan(
    today: Snapshot,
    wanted: Snapshot,
    question: PlanQuestion,
    facts: FactsCache,
    gangs: GangSettings = USUAL_GANGS,
    *,
    read_within: float = READ_WITHIN,
) -> ClusterPlan:
    """What the control loops would make of ``wanted``, which is ``today`` with deployments changed, and the question.

    Raises ``NotFound`` for a worker that there is not, ``BadRequest`` for one that cannot be added. Cancellable; waits
    at most ``read_within`` seconds for headers each of a few times.
    """
    start, remarks = _supposed(wanted, question)
    known = {model.source.index: facts.known(model.source) for model in wanted.models.values()}
    asked: set[str] = set()
    while True:
        found = await _PLANNING.run(_simulated, start, known, gangs, today, abandon=True)
        missing = [model for model in found.unread if model.source.index not in asked]
        if not missing or len(asked) > _READINGS * len(known):
            break
        asked.update(model.source.index for model in missing)
        known.update(await _read(missing, facts, read_within))
    remarks += [
        f"{one.name}: the header of {one.source.readable} could not be read within {read_within:g} s, so it is not "
        "known what comes of it; ask again"
        for one in found.unread
    ]
    if not found.is_settled:
        remarks.append("It does not come to rest within as many turns as are looked at")
    plan = await _PLANNING.run(_told, found, known, remarks, abandon=True)
    if not question.remedies or not plan.waits:
        return plan
    return attrs.evolve(
        plan, waits=await _PLANNING.run(_with_remedies, plan.waits, found, known, gangs, abandon=True)
    )


def _simulated(
    start: Snapshot, known: Mapping[str, FactsResult | None], gangs: GangSettings, today: Snapshot
) -> Simulation:
    return simulate(start, lambda model: known.get(model.source.index), gangs, before=today)


async def _read(
    models: Iterable[Model], facts: FactsCache, within: float
) -> Mapping[str, FactsResult | None]:
    found: dict[str, FactsResult | None] = {}

    async def one(model: Model) -> None:
        found[model.source.index] = await facts.wait_for(
            model, lambda known: known is not None, within=within
        )

    async with trio.open_nursery() as nursery:
        for model in {model.source.index: model for model in models}.values():
            nursery.start_soon(one, model)
    return found


def _supposed(wanted: Snapshot, question: PlanQuestion) -> tuple[Snapshot, list[str]]:
    """The snapshot that the question is about, and what was assumed."""
    remarks: list[str] = []
    added: list[Worker] = []
    if len(question.add) > MOST_ADDED:
        raise BadRequest(f"At most {MOST_ADDED} workers can be added in one plan")
    for text in question.add:
        try:
            one = supposed_worker(text, wanted, [worker.name for worker in added])
        except ValueError as error:
            raise BadRequest(str(error)) from error
        added.append(one.worker)
        remarks += one.assumed
    drained, lost = workers_named(wanted, question.drain), workers_named(wanted, question.lose)
    snapshot = with_drained(with_workers(wanted, added), drained)
    return without_workers(snapshot, lost), remarks


def workers_named(snapshot: Snapshot, names: Sequence[str]) -> list[int]:
    """The ids of the workers of these names. Raises ``NotFound`` with all that there are not."""
    by_name = {worker.name: key for key, worker in snapshot.workers.items()}
    if unknown := [name for name in names if name not in by_name]:
        raise NotFound(f"There is no worker {', '.join(map(repr, unknown))}; gpustack workers shows them")
    return [by_name[name] for name in names]


def _told(found: Simulation, known: Mapping[str, FactsResult | None], remarks: Sequence[str]) -> ClusterPlan:
    before, after = found.before, found.after
    placements = tuple(_placement(one, found, known) for one in found.placed)
    there = before.instances
    ends = tuple(_end(there[key], why, before) for key, why in found.ended.items() if key in there)
    waits = tuple(_wait(after.instances[key], why, before) for key, why in sorted(found.waits.items()))
    decisions = [
        [attrs.asdict(attrs.evolve(one, memory=(), fetches=())) for one in placements],
        [attrs.asdict(one) for one in ends],
        [attrs.asdict(one) for one in waits],
    ]
    return ClusterPlan(
        placements=placements,
        ends=ends,
        waits=waits,
        models=tuple(_outlooks(before, after)),
        remarks=tuple(remarks),
        rests_on={**foundations(before), **_files(before, known), **_files(after, known)},
        decisions=_digest(decisions),
    )


def _placement(
    instance: ModelInstance, found: Simulation, known: Mapping[str, FactsResult | None]
) -> PlannedPlacement:
    place, after = instance.placement, found.after
    assert place is not None
    former = found.before.instances.get(instance.id)
    claims = [claim for _, claim in claims_of(place)]
    model = after.models[instance.model_id]
    result = known.get(model.source.index)
    return PlannedPlacement(
        model=instance.model_name,
        instance=None if former is None else instance.name,
        place=where(place, after),
        worker=after.workers[place.worker_id].name,
        gpu_indexes=place.gpu_indexes,
        ram=sum(claim.ram for claim in claims),
        vram=sum(sum(claim.vram.values()) for claim in claims),
        note=place.note,
        came_from=_place_of(former, found.before),
        memory=told(place.memory, None),
        fetches=tuple(_fetches(model, place, after, result)),
    )


def _place_of(instance: ModelInstance | None, snapshot: Snapshot) -> str | None:
    return None if instance is None or instance.placement is None else where(instance.placement, snapshot)


def _fetches(
    model: Model, place: Placement, snapshot: Snapshot, result: FactsResult | None
) -> Iterable[PlannedFetch]:
    """What each worker that loads the files does not have of them."""
    if model.source.kind is SourceKind.LOCAL_PATH or not has_files(model):
        return
    # Over RPC the main member alone loads the model, and sends others their layers.
    readers = [place.worker_id] if place.claim.tensor_split else [key for key, _ in claims_of(place)]
    files = [one for one in snapshot.files.values() if one.deleted_at is None and not one.local_dir]
    same = [one for one in files if one.source_index == model.source.index]
    for key in dict.fromkeys(readers):
        mine = next((one for one in same if one.worker_id == key), None)
        if mine is not None and mine.state is FileState.READY:
            continue
        size = _size(model, same, result)
        left = None if size is None else int(size * (1 - (mine.download_progress or 0) / 100 if mine else 1))
        name = snapshot.workers[key].name
        yield PlannedFetch(worker=name, bytes=left, seconds=_seconds(left, mine, key, files))


def _size(model: Model, same: Iterable[ModelFile], result: FactsResult | None) -> int | None:
    """Bytes of all files of a source, as the header says or a worker that has them."""
    facts = None if result is None else result.facts
    if facts is not None and facts.file_size is not None:
        return facts.file_size + (facts.projector_size or 0)
    return next((one.size for one in same if one.size is not None and one.state is FileState.READY), None)


def _seconds(
    left: int | None, mine: ModelFile | None, worker_id: int, files: Iterable[ModelFile]
) -> float | None:
    if mine is not None and mine.eta is not None:
        return mine.eta
    speeds = [one.download_speed for one in files if one.worker_id == worker_id and one.download_speed]
    return None if left is None or not speeds else left / max(speeds)


def _end(instance: ModelInstance, why: str, before: Snapshot) -> PlannedEnd:
    return PlannedEnd(
        model=instance.model_name, instance=instance.name, place=_place_of(instance, before), why=why
    )


def _wait(instance: ModelInstance, why: str, before: Snapshot) -> PlannedWait:
    former = before.instances.get(instance.id)
    place = _place_of(former, before)
    return PlannedWait(
        model=instance.model_name,
        instance=None if former is None else instance.name,
        stopped=place is not None,
        place=place,
        why=why,
    )


def _with_remedies(
    waits: Sequence[PlannedWait],
    found: Simulation,
    known: Mapping[str, FactsResult | None],
    gangs: GangSettings,
) -> tuple[PlannedWait, ...]:
    """The waits, that of the first instance of each model with what would help, once everything else is as planned."""
    made = list(waits)
    seen: set[int] = set()
    for place, key in enumerate(sorted(found.waits)):
        instance = found.after.instances[key]
        if instance.model_id in seen or len(seen) == _MOST_REMEDIED:
            continue
        seen.add(instance.model_id)
        model = found.after.models[instance.model_id]
        result = known.get(model.source.index)
        facts, fault = (None, None) if result is None else (result.facts, result.fault)
        said = explain(
            model, instance, found.after, facts, fault=fault, gangs=gangs, facts_of=partial(_facts_in, known)
        )
        made[place] = attrs.evolve(made[place], changes=said.changes)
    return tuple(made)


def _facts_in(known: Mapping[str, FactsResult | None], source: ModelSource) -> ModelFacts | None:
    result = known.get(source.index)
    return None if result is None else result.facts


def _outlooks(before: Snapshot, after: Snapshot) -> Iterable[ModelOutlook]:
    """Of each model of which the number changes, or is not what is wanted."""
    names = {one.id: one for one in (*before.models.values(), *after.models.values())}
    for key, model in sorted(names.items(), key=lambda pair: pair[1].name):
        wanted = after.models[key].replicas if key in after.models else 0
        now, then = _held(key, before), _held(key, after)
        if not now == then == wanted:
            yield ModelOutlook(model=model.name, wanted=wanted, now=now, then=then)


def _held(model_id: int, snapshot: Snapshot) -> int:
    return sum(
        one.placement is not None and one.deleted_at is None for one in snapshot.instances_of(model_id)
    )


# -- what a plan rests on


def foundations(snapshot: Snapshot) -> dict[str, str]:
    """A digest of everything in a snapshot that decisions depend on, by what it is: workers, what they hold, models,
    and what waits. What workers measure all the time is left out."""
    classes = classes_of(snapshot)
    found: dict[str, str] = {}
    for key, worker in snapshot.workers.items():
        found[f"worker {worker.name}"] = _digest([classes.keys[key].shape, classes.said[key]])
        held = [
            (one.name, one.generation, one.deleted_at is not None, claim)
            for one, claim in snapshot.claims_on(key)
        ]
        if held:
            found[f"what runs on {worker.name}"] = _digest(held)
    for model in snapshot.models.values():
        spec = {name: getattr(model, name) for name in sorted(SPEC_FIELDS)}
        found[f"model {model.name}"] = _digest([spec, model.generation, model.backend_spec])
    for backend in snapshot.backends.values():
        found[f"backend {backend.name}"] = _digest(attrs.evolve(backend, version=0, updated_at=None))
    waiting = sorted(one.name for one in snapshot.instances.values() if one.placement is None)
    if waiting:
        found["which instances wait"] = _digest(waiting)
    return found


def changed_since(rests_on: Mapping[str, str], now: Mapping[str, str]) -> list[str]:
    """What is not as it was, in words, sorted: changed, new or gone."""
    return [
        f"{name} ({'is new' if name not in rests_on else 'is gone' if name not in now else 'changed'})"
        for name in sorted(rests_on.keys() | now.keys())
        if rests_on.get(name) != now.get(name)
    ]


def _files(snapshot: Snapshot, known: Mapping[str, FactsResult | None]) -> dict[str, str]:
    """The same of what is known of the files of models."""
    results = ((model, known.get(model.source.index)) for model in snapshot.models.values())
    return {
        f"the files of {model.name}": _digest([result.facts, result.fault])
        for model, result in results
        if result is not None
    }


def _digest(value: object) -> str:
    plain = washed(converter.unstructure(value))
    return hashlib.sha256(orjson.dumps(plain, default=str, option=_SORTED)).hexdigest()[:16]


_SORTED = orjson.OPT_SORT_KEYS | orjson.OPT_NON_STR_KEYS
