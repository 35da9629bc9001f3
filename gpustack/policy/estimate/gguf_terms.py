"""The need of a GGUF term by term, and with which runs it may be compared."""

from __future__ import annotations

import attrs

from gpustack.domain.facts import ModelFacts
from gpustack.domain.memory_use import MemoryTerm

from .gguf import DEVICE_FOOTPRINT, GgufSettings, MemoryNeed, estimate, host_footprint
from .gguf.memory import MARGIN
from .learnt import Experience
from .terms import TermNeed, Terms

_MARGINS = {MemoryTerm.CACHE: MARGIN, MemoryTerm.COMPUTE: MARGIN, MemoryTerm.KEPT: MARGIN}


def gguf_terms(facts: ModelFacts, asked: GgufSettings, known: Experience) -> TermNeed:
    """What llama.cpp will allocate with these settings. ``facts`` are complete."""
    found = estimate(facts, asked)
    bare = estimate(facts, attrs.evolve(asked, prompt_cache=0, checkpoints=0))
    kept = found.host.compute - bare.host.compute
    return TermNeed(
        host={**_terms(bare.host, host_footprint(facts, devices=bool(asked.shares))), MemoryTerm.KEPT: kept},
        devices=[_terms(need, DEVICE_FOOTPRINT) for need in bare.devices],
        margins=_MARGINS,
        known=known,
    )


def settings_name(asked: GgufSettings, total_layers: int | None, peculiarity: str) -> str:
    """The settings that decide how estimate and truth compare: of equal ones the ratio is taken to be the same."""
    partly = asked.offload_layers is not None and asked.offload_layers < (total_layers or 0)
    words = {
        "devices": len(asked.shares),
        "remote": asked.remote,
        "layers": asked.offload_layers if partly and asked.shares else "all",
        "ctx": asked.ctx,
        "slots": asked.parallel,
        "ubatch": asked.ubatch,
        "k": asked.key_type,
        "v": asked.value_type,
        "unified": asked.unified,
        "fa": asked.flash_attention,
        "full-window": asked.full_window,
        "kv-offload": asked.kv_offload,
        "logits": asked.logits,
        "drafted": asked.drafted,
        "host-experts": asked.host_experts,
        "given": peculiarity,
    }
    shown = {name: int(value) if isinstance(value, bool) else value for name, value in words.items()}
    return " ".join(f"{name}={value}" for name, value in shown.items())


def _terms(need: MemoryNeed, footprint: int) -> Terms:
    return {
        MemoryTerm.WEIGHTS: need.weights,
        MemoryTerm.CACHE: need.kv,
        MemoryTerm.COMPUTE: need.compute,
        MemoryTerm.PROCESS: footprint,
    }
