"""The memory that a deployment needs, whatever its engine: bytes of the host, and of devices."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping, Sequence
from functools import cached_property
from types import MappingProxyType

import attrs

from gpustack.domain.facts import MOST_LAYERS, FileFormat, ModelFacts
from gpustack.domain.memory_use import MemoryPlan
from gpustack.domain.model import Model
from gpustack.domain.unit import GIB, MIB, human_bytes
from gpustack.engines import diffusers, llama_cpp, mindie, parameters, vox_box
from gpustack.engines.llama_cpp import answers_vectors, defaults, slot_counts, slots
from gpustack.engines.memory import SafetensorsMemory
from gpustack.engines.registry import engine_by_name

from .gguf import DEVICE_FOOTPRINT, HOST_FOOTPRINT, GgufSettings, estimate, host_footprint, layer_count
from .gguf_terms import gguf_terms, settings_name
from .learnt import NOTHING, Experience
from .media import image_needs, speech_needs
from .mindie import mindie_demand
from .need import DeviceNeed, MemoryDemand
from .safetensors_demand import SafetensorsDemand, counts_given, safetensors_demand

LEARNING = "GPUSTACK_MODEL_LEARNING"
"""``off`` in a deployment's environment: what runs have shown does not count for it."""
VRAM_CLAIM = "GPUSTACK_MODEL_VRAM_CLAIM"
RAM_CLAIM = "GPUSTACK_MODEL_RAM_CLAIM"
_NO_RUNS: Mapping[str, Experience] = MappingProxyType({})
_LONGEST_CLAIM = 19
"""Digits: what does not fit 64 bits is no number of bytes, and could not be kept."""
_LARGEST_SHARE = 1e9
_AS_CLAIMED = "Memory as claimed by the deployment's environment"
_DRAFT_NOT_COUNTED = (
    f"The memory of its draft model is not known and not counted: set {VRAM_CLAIM} or {RAM_CLAIM} (bytes) in the "
    "deployment's environment to what both take"
)
SIZE_FACTOR = 1.2
SIZE_SURPLUS = 1 * GIB
"""Without a header: files times the factor, plus this for caches and buffers."""


@attrs.frozen(kw_only=True)
class GgufDemand(MemoryDemand):
    """llama.cpp with a header that was read."""

    facts: ModelFacts
    settings: GgufSettings
    _known: dict[object, DeviceNeed] = attrs.field(factory=dict, init=False, eq=False, repr=False)
    """Answers given before: every worker is asked the same."""
    _plans: dict[object, MemoryPlan] = attrs.field(factory=dict, init=False, eq=False, repr=False)

    def cpu(self) -> int:
        return self._need(attrs.evolve(self.settings, shares=())).ram

    def devices(self, shares: Sequence[float], layers: int | None = None) -> DeviceNeed:
        return self.among_workers(shares, 0, layers)

    def least(self, devices: int) -> int:
        """Weights and caches, which no division makes smaller, and what a process takes on each device. Of what runs
        have shown only the weights are certain."""
        return self._undivided + (0 if self.runs else devices * DEVICE_FOOTPRINT)

    @cached_property
    def _undivided(self) -> int:
        [whole] = estimate(self.facts, attrs.evolve(self.settings, shares=(1.0,))).devices
        return whole.weights + (0 if self.runs else whole.kv)

    def among_workers(self, shares: Sequence[float], remote: int, layers: int | None = None) -> DeviceNeed:
        key = tuple(shares), remote, layers
        known = self._known.get(key)
        if known is None:
            asked = attrs.evolve(self.settings, shares=key[0], offload_layers=layers, remote=remote)
            known = self._known[key] = self._need(asked)
        return known

    def plan(self, shares: Sequence[float], layers: int | None = None) -> MemoryPlan:
        key = tuple(shares), layers
        known = self._plans.get(key)
        if known is None:
            asked = attrs.evolve(self.settings, shares=key[0], offload_layers=layers)
            settings = settings_name(asked, self.total_layers, self.peculiarity)
            terms = gguf_terms(self.facts, asked, self.runs.get(settings, NOTHING))
            known = terms.plan(llama_cpp.ENGINE.name, self.facts.architecture, settings, maps_weights=True)
            self._plans[key] = known
        return known

    def _need(self, asked: GgufSettings) -> DeviceNeed:
        known = (
            self.runs.get(settings_name(asked, self.total_layers, self.peculiarity)) if self.runs else None
        )
        if known is not None:
            return gguf_terms(self.facts, asked, known).claimed
        found = estimate(self.facts, asked)
        return DeviceNeed(
            ram=found.host.claim(host_footprint(self.facts, devices=bool(asked.shares))),
            vram=tuple(need.claim(DEVICE_FOOTPRINT) for need in found.devices),
        )


@attrs.frozen(kw_only=True)
class FixedDemand(MemoryDemand):
    """Figures that do not come from a header: set by the user, guessed from file sizes, or zero where unknown."""

    ram: int = 0
    """Host memory beside devices."""
    vram: int = 0
    ram_alone: int = 0
    """Host memory when there are no devices."""

    def cpu(self) -> int:
        return self.ram_alone

    def least(self, devices: int) -> int:
        return self.vram

    def devices(self, shares: Sequence[float], layers: int | None = None) -> DeviceNeed:
        whole = sum(shares)
        return DeviceNeed(ram=self.ram, vram=tuple(math.ceil(self.vram * share / whole) for share in shares))


def demand_of(
    model: Model,
    facts: ModelFacts | None,
    engine_name: str,
    slot_count: int | None = None,
    runs: Mapping[str, Experience] = _NO_RUNS,
) -> MemoryDemand:
    """The need as the deployment's environment claims, else by its header, else by its size, else unknown.

    ``slot_count``: requests at a time, where their number is ours to choose. ``runs``: what runs of its engine and
    architecture have shown, by settings; a need by header learns from it.
    """
    found = _demand_of(model, facts, engine_name, slot_count)
    if peculiarity := _peculiarity(model):
        found = attrs.evolve(found, peculiarity=peculiarity)
    return attrs.evolve(found, runs=runs) if runs and model.env.get(LEARNING, "").lower() != "off" else found


def _peculiarity(model: Model) -> str:
    """A short name of all parameters, of the names of variables (their values may be secrets), and of how many adapters
    there are; empty where there is none of these."""
    names = sorted(name for name in model.env if not name.startswith("GPUSTACK_"))
    if not (model.backend_parameters or names or model.lora_adapters):
        return ""
    words = (*model.backend_parameters, "", *names, "", str(len(model.lora_adapters)))
    return hashlib.sha256("\0".join(words).encode(errors="replace")).hexdigest()[:12]


def _demand_of(
    model: Model, facts: ModelFacts | None, engine_name: str, slot_count: int | None
) -> MemoryDemand:
    is_llama = engine_name == llama_cpp.ENGINE.name
    engine = engine_by_name(engine_name)
    memory = None if engine is None else engine.memory
    vram, ram = _claimed(model.env, VRAM_CLAIM), _claimed(model.env, RAM_CLAIM)
    is_claimed, is_read = vram is not None or ram is not None, facts is not None and facts.is_complete
    if (
        engine is mindie.ENGINE
        and facts is not None
        and is_read
        and not is_claimed
        and not engine.faults(model)
    ):
        return mindie_demand(model, facts)
    if memory is not None and facts is not None and is_read and facts.format is FileFormat.SAFETENSORS:
        need = attrs.evolve(safetensors_demand(model, facts, memory, slot_count), engine=engine_name)
        return _with_claims(model, need, vram or 0, ram or 0) if is_claimed else need
    if is_claimed:
        known = _as_claimed(model, vram, ram or 0, is_llama=is_llama)
    elif is_llama and facts is not None and is_read:
        return _by_header(model, facts, slot_count)
    elif engine_name == vox_box.ENGINE.name and (needs := speech_needs(model, facts)) is not None:
        return _of_media(model, needs[0], 0, needs[1])
    elif engine_name == diffusers.ENGINE.name and (images := image_needs(facts)) is not None:
        return _of_media(model, *images)
    else:
        known = _by_size(model, facts, is_llama=is_llama)
    return known if memory is None else _in_equal_shares(model, known, memory, is_claimed=is_claimed)


def _of_media(model: Model, vram: int, ram: int, ram_alone: int) -> FixedDemand:
    """Speech and images: on one device, or on none. ``ram`` is that beside a device."""
    return FixedDemand(
        vram=vram,
        ram=ram,
        ram_alone=ram_alone,
        on_cpu=not _picks_gpus(model),
        on_devices=vram > 0,
        device_counts=(1,),
        note="Memory need guessed from the size of its files",
    )


def gguf_settings(model: Model, slot_count: int | None = None) -> GgufSettings:
    """The settings of llama.cpp that decide about memory: our defaults, and over them the user's parameters."""
    given, own = model.backend_parameters, defaults(model)

    def number(flags: tuple[str, ...], default: int) -> int:
        value = parameters.number_of(given, *flags)
        return default if value is None or value < 1 else value

    key = parameters.value_of(given, *llama_cpp.KEY_TYPE_FLAGS) or "f16"
    value = parameters.value_of(given, *llama_cpp.VALUE_TYPE_FLAGS) or "f16"
    batch = number(llama_cpp.BATCH_FLAGS, own["batch"])
    divided = slots(model, slot_count)
    kept = parameters.number_of(given, *llama_cpp.CHECKPOINT_FLAGS)
    cache = parameters.number_of(given, *llama_cpp.CACHE_RAM_FLAGS) or 0
    experts = parameters.number_of(given, *llama_cpp.HOST_EXPERTS_LAYERS_FLAGS) or 0
    kinds = parameters.value_of(given, *llama_cpp.DRAFT_TYPE_FLAGS) or ""
    drafts = kinds not in ("", "none") or parameters.has(given, *llama_cpp.DRAFT_MODEL_FLAGS)
    return GgufSettings(
        ctx=divided.cells,
        parallel=divided.count,
        ubatch=min(number(llama_cpp.MICRO_BATCH_FLAGS, own["ubatch"]), batch),
        unified=divided.unified,
        key_type=key,
        value_type=value,
        flash_attention=parameters.value_of(given, *llama_cpp.FLASH_FLAGS) not in ("off", "0"),
        full_window=parameters.has(given, *llama_cpp.FULL_WINDOW_FLAGS),
        kv_offload=not parameters.has(given, *llama_cpp.NO_OFFLOAD_FLAGS),
        logits=not answers_vectors(model),
        # -1 is "no limit" to llama.cpp: then its own default is what we count.
        prompt_cache=(8192 if cache < 0 else cache) * MIB,
        checkpoints=llama_cpp.CHECKPOINTS if kept is None else max(kept, 0),
        host_experts=MOST_LAYERS
        if parameters.has(given, *llama_cpp.HOST_EXPERTS_FLAGS)
        else min(max(experts, 0), MOST_LAYERS),
        drafted=number(llama_cpp.DRAFT_TOKENS_FLAGS, llama_cpp.DRAFT_TOKENS) if drafts else 0,
        predicts="mtp" in kinds,
    )


def _by_header(model: Model, facts: ModelFacts, slot_count: int | None) -> GgufDemand:
    layers = layer_count(facts)
    fixed = parameters.number_of(model.backend_parameters, *llama_cpp.LAYER_FLAGS)
    may_use_cpu = model.cpu_offloading is not False
    asked = gguf_settings(model, slot_count)
    if llama_cpp.wanted_projector(model) == "":
        facts = attrs.evolve(facts, projector_size=None)
    return GgufDemand(
        facts=facts,
        settings=asked,
        slots=asked.parallel,
        slot_choices=slot_counts(model),
        spans_workers=True,
        total_layers=layers,
        fixed_layers=None if fixed is None else min(fixed, layers),
        split=_split(model),
        on_cpu=may_use_cpu and fixed in (None, 0) and not _picks_gpus(model),
        on_devices=fixed != 0,
        note=_DRAFT_NOT_COUNTED
        if parameters.has(model.backend_parameters, *llama_cpp.DRAFT_MODEL_FLAGS)
        else "",
    )


def _as_claimed(model: Model, vram: int | None, ram: int, *, is_llama: bool) -> FixedDemand:
    video = vram or 0
    picked = _picks_gpus(model)
    return FixedDemand(
        ram=ram,
        vram=video,
        ram_alone=ram + video,
        split=_split(model) if is_llama else (),
        on_cpu=not picked and (video == 0 or (is_llama and model.cpu_offloading is not False)),
        on_devices=picked or video > 0,
        spans_workers=is_llama,
        note=_AS_CLAIMED,
    )


def _with_claims(model: Model, need: SafetensorsDemand, vram: int, ram: int) -> SafetensorsDemand:
    """What the deployment claims, in place of what its headers tell; the cache gets what the rest leaves."""
    picked = _picks_gpus(model)
    return attrs.evolve(
        need,
        claimed=vram,
        claimed_ram=ram,
        slots=None,
        slot_choices=(),
        on_cpu=need.on_cpu and not picked and vram == 0,
        on_devices=picked or vram > 0,
        note=_AS_CLAIMED,
    )


def _in_equal_shares(
    model: Model, need: FixedDemand, memory: SafetensorsMemory, *, is_claimed: bool
) -> FixedDemand:
    """The same for an engine that loads safetensors, whose headers tell too little."""
    devices = need.on_devices if is_claimed else need.vram > 0 or _picks_gpus(model)
    return attrs.evolve(
        need,
        equal=True,
        device_counts=counts_given(model, memory),
        spans_workers=memory.divides and memory.spans_workers,
        on_cpu=need.on_cpu and memory.on_cpu and model.cpu_offloading is not False,
        on_devices=devices,
    )


def _by_size(model: Model, facts: ModelFacts | None, *, is_llama: bool) -> FixedDemand:
    size = None if facts is None else (facts.weights or facts.file_size)
    picked = _picks_gpus(model)
    on_cpu = not picked and (not is_llama or model.cpu_offloading is not False)
    if size is None:
        devices = (
            ""
            if is_llama or picked
            else "; no GPU is shown to it unless it claims video memory or picks GPUs"
        )
        return FixedDemand(
            on_cpu=on_cpu,
            on_devices=picked,
            note=f"Memory need unknown, nothing is set aside for it; set {VRAM_CLAIM} or {RAM_CLAIM} (bytes) "
            f"in the deployment's environment{devices}",
        )
    need = math.ceil(size * SIZE_FACTOR) + SIZE_SURPLUS
    return FixedDemand(
        vram=need,
        ram=HOST_FOOTPRINT,
        ram_alone=need,
        split=_split(model) if is_llama else (),
        on_cpu=on_cpu,
        on_devices=picked or is_llama,
        spans_workers=is_llama,
        note=f"Memory need guessed from {human_bytes(size)} of files",
    )


def _picks_gpus(model: Model) -> bool:
    return bool(model.gpu_selector and model.gpu_selector.gpu_ids)


def _split(model: Model) -> tuple[float, ...]:
    text = parameters.value_of(model.backend_parameters, *llama_cpp.SPLIT_FLAGS)
    try:
        shares = tuple(float(share) for share in (text or "").split(",") if share)
    except ValueError:
        return ()
    return shares if all(0 < share < _LARGEST_SHARE for share in shares) else ()


def faults_of_claims(env: Mapping[str, str]) -> list[str]:
    """A sentence for each claim in a deployment's environment that is no number of bytes."""
    return [
        f"env: {name} must be a whole number of bytes, not {env[name]!r}"
        for name in (VRAM_CLAIM, RAM_CLAIM)
        if env.get(name, "").strip() and _claimed(env, name) is None
    ]


def _claimed(env: Mapping[str, str], name: str) -> int | None:
    text = env.get(name, "").strip()
    return int(text) if text.isascii() and text.isdigit() and len(text) < _LONGEST_CLAIM else None
