"""A deployed model: what a user asked for. Its instances carry it out."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from enum import StrEnum
from typing import Any

import attrs

from .access import Limits
from .affinity import AntiAffinity
from .artifact import LoraAdapter, ModelSource
from .backend import BackendSpec
from .record import Record, stored
from .taint import Toleration


class Category(StrEnum):
    """What a model answers."""

    LLM = "llm"
    EMBEDDING = "embedding"
    IMAGE = "image"
    RERANKER = "reranker"
    SPEECH_TO_TEXT = "speech_to_text"
    TEXT_TO_SPEECH = "text_to_speech"
    UNKNOWN = "unknown"


class PlacementStrategy(StrEnum):
    """Which of the places that fit is taken."""

    SPREAD = "spread"
    BINPACK = "binpack"


class ModelAccess(StrEnum):
    """Who may use a model: everyone without a key, all accounts, or named accounts. Administrators always may."""

    PUBLIC = "public"
    AUTHED = "authed"
    ALLOWED_USERS = "allowed_users"


LEAST_PRIORITY, MOST_PRIORITY = -1000, 1000


@attrs.frozen(kw_only=True)
class GpuSelector:
    """Devices picked by hand, as ids ``<worker>:<type>:<index>``."""

    gpu_ids: tuple[str, ...] = ()


@stored("models", unique=(("name",),))
@attrs.frozen(kw_only=True)
class Model(Record):
    """A deployment. ``name`` is what OpenAI clients call it. ``generation`` grows when what runs must change."""

    name: str
    source: ModelSource
    description: str | None = None
    meta: Mapping[str, Any] = attrs.field(factory=dict)
    replicas: int = 1
    ready_replicas: int = 0
    categories: tuple[str, ...] = ()
    placement_strategy: PlacementStrategy = PlacementStrategy.SPREAD
    priority: int = 0
    """Those that wait are decided on in the order of it, the highest first."""
    preempts: bool = False
    """Where it fits nowhere it may have instances of models of lower priority end."""
    preemptible: bool = True
    """Whether its own instances may be ended for that."""
    cpu_offloading: bool | None = None
    distributed_inference_across_workers: bool | None = None
    worker_selector: Mapping[str, str] = attrs.field(factory=dict)
    gpu_selector: GpuSelector | None = None
    backend: str | None = None
    backend_version: str | None = None
    backend_parameters: tuple[str, ...] = ()
    command: str | None = None
    """Custom engine only: the command, with ``{port}``, ``{model_path}`` and ``{served_name}``."""
    health_path: str | None = None
    backend_spec: BackendSpec | None = None
    """What the administrators' backend that ``backend`` names said when this generation was made."""
    env: Mapping[str, str] = attrs.field(factory=dict)
    restart_on_error: bool = True
    distributable: bool = False
    generation: int = 1
    access: ModelAccess = ModelAccess.AUTHED
    allowed_user_ids: tuple[int, ...] | None = None
    """The accounts that may use it when ``access`` is ``ALLOWED_USERS``."""
    limits: Limits | None = None
    """The limits of all its users together."""
    lora_adapters: tuple[LoraAdapter, ...] = ()
    labels: Mapping[str, str] = attrs.field(factory=dict)
    """By which others' ``anti_affinity`` tells what it is not to be beside."""
    tolerations: tuple[Toleration, ...] = ()
    anti_affinity: AntiAffinity | None = None


RUNTIME_FIELDS = frozenset(
    {
        "source",
        "cpu_offloading",
        "distributed_inference_across_workers",
        "worker_selector",
        "gpu_selector",
        "backend",
        "backend_version",
        "backend_parameters",
        "backend_spec",
        "categories",
        "command",
        "health_path",
        "env",
        "lora_adapters",
        "name",
    }
)
"""A change of one of these changes what runs, and begins a new generation unless what runs takes it up."""

_NOT_ASKED_FOR = frozenset({"meta", "ready_replicas", "generation", "backend_spec"})
SPEC_FIELDS = frozenset(field.name for field in attrs.fields(Model)).difference(
    _NOT_ASKED_FOR, (field.name for field in attrs.fields(Record))
)
"""What users ask for, in distinction from what the server notes beside it."""


def edited(before: Model, after: Model, taken_up: Collection[str] = ()) -> Model:
    """``after`` with its generation grown if anything that runs differs from ``before``.

    Changes of the fields ``taken_up`` need no new instances: those that run follow them by themselves.
    """
    differs = any(
        getattr(before, name) != getattr(after, name) for name in RUNTIME_FIELDS.difference(taken_up)
    )
    return attrs.evolve(after, generation=before.generation + 1 if differs else before.generation)
