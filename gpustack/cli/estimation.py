"""What a model takes of memory, and how it would run on GPUs that are only being considered: no server is asked.

The figures and the decisions are those of the scheduler, for a cluster of one empty machine.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import attrs

from gpustack.cli.session import Doc
from gpustack.domain.artifact import ModelSource
from gpustack.domain.facts import ModelFacts
from gpustack.domain.gpu_kind import KINDS
from gpustack.domain.instance import Placement
from gpustack.domain.memory_use import MemoryPlan, MemorySide, MemoryTerm, term_name
from gpustack.domain.model import Model
from gpustack.domain.record import table_of
from gpustack.domain.snapshot import Snapshot
from gpustack.domain.worker import EngineBuild, SystemReserved, Worker
from gpustack.engines import llama_cpp
from gpustack.engines.engine import Engine
from gpustack.engines.registry import engine_for
from gpustack.errors import BadRequest
from gpustack.policy.decision import impossibilities
from gpustack.policy.estimate.demand import gguf_settings
from gpustack.policy.estimate.need import MemoryDemand
from gpustack.policy.placement import PlacementRequest
from gpustack.policy.schedule import place
from gpustack.policy.what_if import supposed_worker

_COUNTS = (1, 2, 4)
"""GPUs among which it is shown divided, where no GPUs are named."""
_STEP = 1024
_LONGEST = 1 << 20
"""Tokens: no longer context is looked for."""
_KINDS_SHOWN = 3


@attrs.frozen(kw_only=True)
class EstimateRequest:
    """A model, and how it is to run. ``context`` is in tokens of one request, ``slots`` are requests at a time;
    ``None`` leaves either to us."""

    source: ModelSource
    facts: ModelFacts
    backend: str | None = None
    parameters: tuple[str, ...] = ()
    context: int | None = None
    cache_type: str | None = None
    slots: int | None = None

    def placement_request(self) -> PlacementRequest:
        """It as the scheduler is asked. Raises Invalid where no engine serves it, BadRequest for what cannot be."""
        category = self.facts.category
        model = Model(
            name="estimated",
            source=self.source,
            backend=self.backend,
            categories=() if category is None else (category.value,),
        )
        engine = engine_for(model, self.facts)
        given = (*self.parameters, *_flags(engine, self.context, self.cache_type))
        model = attrs.evolve(model, backend=engine.wire_name, backend_parameters=given)
        request = PlacementRequest(model=model, facts=self.facts, engine_name=engine.name, slots=self.slots)
        if faults := impossibilities(request):
            raise BadRequest("; ".join(faults))
        return request


def _flags(engine: Engine, context: int | None, cache_type: str | None) -> list[str]:
    """The engine's own parameters for both. Raises BadRequest for what it is not told."""
    memory = engine.memory
    is_llama = engine is llama_cpp.ENGINE
    contexts = llama_cpp.CTX_FLAGS[1:] if is_llama else () if memory is None else memory.context[:1]
    caches = () if memory is None else memory.cache_type[:1]
    if is_llama:
        caches = (llama_cpp.KEY_TYPE_FLAGS[1], llama_cpp.VALUE_TYPE_FLAGS[1])
    found = []
    for option, value, flags in (("--ctx", context, contexts), ("--kv", cache_type, caches)):
        if value is not None and not flags:
            raise BadRequest(f"{option} is not for {engine.wire_name}, which is not told that")
        found += [f"{flag}={value}" for flag in flags if value is not None]
    return found


def estimated(asked: EstimateRequest, specs: Sequence[str]) -> Doc:
    """The answer as a document. Raises BadRequest for what can never run, and for a text that names no GPUs."""
    request = asked.placement_request()
    demand = request.demand
    places = [_on(request, asked, spec) for spec in specs] or _usual(demand)
    return {
        "source": asked.source.readable,
        "model": _told(asked.facts),
        "engine": request.model.backend,
        "settings": _settings(request),
        "note": demand.note,
        "places": places,
        "kinds": _kinds(demand) if not specs else [],
    }


def _told(facts: ModelFacts) -> Doc:
    return {
        "name": facts.name,
        "architecture": facts.architecture or None,
        "category": None if facts.category is None else facts.category.value,
        "parameters": facts.parameters,
        "quantisation": facts.quantisation or facts.dtype,
        "layers": facts.total_layers,
        "context_length": facts.context_length,
        "file_size": facts.file_size,
        "projector_size": facts.projector_size,
    }


def _settings(request: PlacementRequest) -> Doc:
    demand = request.demand
    if request.engine_name == llama_cpp.ENGINE.name:
        divided = llama_cpp.slots(request.model, request.slots)
        own = gguf_settings(request.model, request.slots)
        cache = own.key_type if own.key_type == own.value_type else f"{own.key_type}/{own.value_type}"
        return {"context": divided.context, "slots": divided.count, "cache_type": cache}
    return {"context": demand.context, "slots": demand.slots, "cache_type": None}


def _usual(demand: MemoryDemand) -> list[Doc]:
    """On the processor, and on as many GPUs as usual."""
    found = []
    if demand.on_cpu:
        ram = demand.cpu()
        found.append(_place("processor", None, demand.plan(()), ram, ()))
    counts = [count for count in _COUNTS if not demand.device_counts or count in demand.device_counts]
    for count in counts if demand.on_devices else ():
        shares = (1.0,) * count
        need = demand.devices(shares)
        name = "1 GPU" if count == 1 else f"{count} GPUs"
        found.append(_place(name, None, demand.plan(shares), need.ram, need.vram))
    return found


def _place(
    name: str, fits: bool | None, plan: MemoryPlan | None, ram: int, vram: Sequence[int], **more: Any
) -> Doc:
    """``fits``: ``None`` where no GPUs were named. ``parts`` are bytes by term of all devices, and of the host."""
    claimed: Mapping[str, int] = {} if plan is None else plan.claimed
    parts = {
        side.value: {
            term.value: size
            for term in MemoryTerm
            if (size := claimed.get(term_name(side, term))) is not None
        }
        for side in MemorySide
    }
    return {"place": name, "fits": fits, "memory": ram, "video_memory": list(vram), "parts": parts, **more}


def _on(request: PlacementRequest, asked: EstimateRequest, spec: str) -> Doc:
    worker = _machine(request, spec)
    snapshot = Snapshot(tables={table_of(Worker): {worker.id: worker}})
    found = place(request, snapshot)
    if not isinstance(found, Placement):
        told = _of_machine(found.sentence.partition(" To make it fit: ")[0], worker)
        change = None if found.smallest_change is None else _of_machine(found.smallest_change, worker)
        return _place(spec, False, None, 0, (), why=told, smallest_change=change)
    claim = found.claim
    vram = [claim.vram[index] for index in found.gpu_indexes]
    return _place(
        spec,
        True,
        found.memory,
        claim.ram,
        vram,
        layers=claim.offload_layers if found.gpu_indexes else None,
        total_layers=claim.total_layers,
        slots=claim.slots,
        context=claim.context or _settings(attrs.evolve(request, slots=claim.slots))["context"],
        longest_context=_longest_context(request, asked, snapshot) if found.gpu_indexes else None,
        free=[
            (device.memory.total or 0) - worker.system_reserved.vram for device in worker.status.gpu_devices
        ],
        assumed_memory=None if "+" in spec else worker.status.memory.total,
        note=_of_machine(found.note, worker),
    )


def _of_machine(text: str, worker: Worker) -> str:
    """A sentence of the scheduler's in the words of the command: nobody has named that worker."""
    told = text.replace(f"worker {worker.name}", "the machine")
    return told.replace(llama_cpp.CTX_FLAGS[1], "--ctx")


def _machine(request: PlacementRequest, spec: str) -> Worker:
    """The machine that a text such as ``24GiB`` or ``2xRTX4090+128GiB`` means. Raises BadRequest."""
    text = spec if spec[:1].isdigit() and "x" in spec.lower() else f"1x{spec}"
    try:
        worker = supposed_worker(text, Snapshot()).worker
    except ValueError as error:
        raise BadRequest(str(error)) from None
    builds = worker.status.engines
    types = tuple({device.type for device in worker.status.gpu_devices})
    if all(build.engine != request.engine_name for build in builds):
        builds = (*builds, EngineBuild(engine=request.engine_name, origin="supposed", drives=types))
    return attrs.evolve(worker, status=attrs.evolve(worker.status, engines=builds))


def _longest_context(request: PlacementRequest, asked: EstimateRequest, snapshot: Snapshot) -> int | None:
    """The longest context of one request at a time with which the whole model lies on the GPUs; ``None`` where no
    context can be set, or none has room."""
    most = min(asked.facts.context_length or _LONGEST, _LONGEST) // _STEP

    def holds(steps: int) -> bool:
        try:
            tried = attrs.evolve(asked, context=steps * _STEP, slots=1).placement_request()
        except BadRequest:
            return False
        found = place(tried, snapshot)
        if not isinstance(found, Placement) or not found.gpu_indexes:
            return False
        claim = found.claim
        return claim.offload_layers is None or claim.offload_layers == claim.total_layers

    if most < 1 or not holds(1):
        return None
    low, high = 1, most
    while low < high:
        middle = (low + high + 1) // 2
        low, high = (middle, high) if holds(middle) else (low, middle - 1)
    return low * _STEP


def _kinds(demand: MemoryDemand) -> list[str]:
    """The smallest kinds of GPUs one of which holds all of it."""
    if not demand.on_devices or (demand.device_counts and 1 not in demand.device_counts):
        return []
    [need] = demand.devices((1.0,)).vram
    reserved = SystemReserved().vram
    room = [
        kind
        for kind in sorted(KINDS, key=lambda kind: (kind.memory, kind.name))
        if 0 < need <= demand.holdable(kind.memory - reserved, kind.memory)
    ]
    return [kind.name for kind in room[:_KINDS_SHOWN]]
