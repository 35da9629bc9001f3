"""How a claim came about, and what was measured, a sentence a term."""

from __future__ import annotations

from gpustack.domain.memory_use import MeasuredMemory, MemoryPlan, TermBytes, TermExperience
from gpustack.domain.unit import human_bytes

from .estimate.learnt import measured_terms

_WHERE = {"host": "Memory", "devices": "Video memory"}
_WHAT = {
    "weights": "the weights",
    "cache": "the cache",
    "compute": "computing",
    "graphs": "CUDA graphs",
    "process": "the process itself",
    "kept": "prompts and states that are kept",
}


def told(plan: MemoryPlan | None, measured: MeasuredMemory | None) -> tuple[str, ...]:
    """``Video memory for computing: 512.0 MiB, learnt from 7 runs of llama.cpp 7301, ± 3 %; 498.2 MiB measured``."""
    if plan is None:
        return ()
    seen: TermBytes = {} if measured is None else measured_terms(plan, measured)
    sentences = [_sentence(name, size, plan, seen.get(name)) for name, size in plan.claimed.items()]
    return (*sentences, *([] if measured is None else _held(measured)))


def _held(measured: MeasuredMemory) -> list[str]:
    """What its processes hold in all, whatever it is for."""
    found = []
    for what, first, peak in (
        ("memory", measured.host, measured.host_peak),
        ("video memory", measured.devices, measured.devices_peak),
    ):
        if first is not None:
            more = f", and {human_bytes(peak)} since" if peak is not None and peak > first else ""
            found.append(f"When it was ready it held {human_bytes(first)} of {what}{more}")
    return found


def _sentence(name: str, claimed: int, plan: MemoryPlan, measured: int | None) -> str:
    side, _, term = name.partition(" ")
    where, what = _WHERE.get(side, side), _WHAT.get(term, term)
    learnt = plan.learnt.get(name)
    source = "estimated" if learnt is None else _experience(learnt, plan.engine)
    if learnt is not None:
        source = f"{source} (by formula {human_bytes(plan.estimated.get(name, 0))})"
    found = "" if measured is None else f"; {human_bytes(measured)} measured"
    return f"{where} for {what}: {human_bytes(claimed)}, {source}{found}"


def _experience(learnt: TermExperience, engine: str) -> str:
    runs = "1 run" if learnt.runs == 1 else f"{learnt.runs} runs"
    build = f"{engine} {learnt.build}" if learnt.build else engine
    return f"learnt from {runs} of {build}, ± {max(round(learnt.spread * 100), 1)} %"
