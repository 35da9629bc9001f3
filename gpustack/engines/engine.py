"""What describes an engine: the interface, what it is given, the process it asks for, and how that is judged."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol

import attrs

from gpustack.domain.facts import ModelFacts
from gpustack.domain.instance import ModelInstance, Placement
from gpustack.domain.model import Model
from gpustack.domain.worker import EngineBuild

from .memory import SafetensorsMemory


@attrs.frozen(kw_only=True)
class Probe:
    """An HTTP GET on the engine's port, each ``period``; it succeeds with status 200 within ``timeout``. Seconds.

    The engine is taken for dead after ``failures`` in a row.
    """

    path: str
    period: float
    timeout: float
    failures: int = 1


@attrs.frozen(kw_only=True)
class HealthPolicy:
    """How a running engine is judged. Seconds.

    It failed to start if it is not ready ``start_deadline`` after its start, and is killed if it still runs
    ``stop_grace`` after it was asked to end. Stored in the engine's state file: an engine of an older daemon is judged
    by what that one wrote, so fields may be added, with defaults, but not removed.
    """

    readiness: Probe
    liveness: Probe
    start_deadline: float
    stop_grace: float


@attrs.frozen(kw_only=True)
class LaunchContext:
    """Everything that an engine may need to describe its process."""

    model: Model
    instance: ModelInstance
    placement: Placement
    model_path: str
    mmproj_path: str | None = None
    port: int
    host: str = "127.0.0.1"
    api_key: str | None = attrs.field(default=None, repr=False)
    """The engine is to refuse requests without it. It goes into the environment, never on the command line."""
    build: EngineBuild
    data_dir: str
    device_type: str | None = None
    """Type of the devices placed on, e.g. ``cuda``; ``None`` on the CPU."""
    cpu_count: float | None = None
    """Logical cores that the worker may use; ``None`` if unknown."""


@attrs.frozen(kw_only=True)
class LaunchSpec:
    """The process to start: its command, what its environment has beyond the worker's own, and how it is judged."""

    argv: tuple[str, ...]
    env: Mapping[str, str]
    health: HealthPolicy


class Engine(Protocol):
    """One kind of inference engine."""

    @property
    def name(self) -> str:
        """Its name inside, and in ``EngineBuild.engine``."""

    @property
    def wire_name(self) -> str:
        """Its name in the API (``backend``)."""

    @property
    def any_device(self) -> bool:
        """Whether it runs on every device, rather than on those only that its build says it drives."""

    @property
    def memory(self) -> SafetensorsMemory | None:
        """How it takes memory for safetensors; ``None`` where it does not load them, or nobody can tell."""

    @property
    def metrics(self) -> Mapping[str, str]:
        """Sample name on the engine's ``/metrics`` → unified name."""

    def serves(self, model: Model, facts: ModelFacts | None) -> bool:
        """Whether it runs this model when the deployment names no backend."""

    def faults(self, model: Model) -> list[str]:
        """What is wrong with the deployment for this engine, a sentence each; nothing wrong is empty."""

    def fetches(self, model: Model) -> bool:
        """Whether this model's files must be on the worker before the start."""

    def context(self, model: Model) -> int | None:
        """The most tokens that prompt and answer of one request may have together; ``None`` if nothing bounds them."""

    def launch(self, context: LaunchContext) -> LaunchSpec:
        """The process to start. Call it only for a model without ``faults``."""
