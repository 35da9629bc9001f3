"""The words every engine is described in: what it is given, what it asks to be run, and how it is probed."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol

import attrs

from gpustack.domain.facts import ModelFacts
from gpustack.domain.instance import ModelInstance, Placement
from gpustack.domain.model import Model
from gpustack.domain.worker import EngineBuild


@attrs.frozen(kw_only=True)
class Probe:
    """An HTTP GET on the engine's port; status 200 is a yes. ``failures`` in a row are a no. Seconds."""

    path: str
    period: float
    timeout: float
    failures: int = 1


@attrs.frozen(kw_only=True)
class LaunchContext:
    """All an engine may need to describe its process; no I/O is needed to use it."""

    model: Model
    instance: ModelInstance
    placement: Placement
    model_path: str
    mmproj_path: str | None = None
    port: int
    host: str = "127.0.0.1"
    api_key: str | None = attrs.field(default=None, repr=False)
    """Who asks the engine will prove itself by it. It goes into the environment, never on the command line."""
    build: EngineBuild
    data_dir: str
    device_type: str | None = None
    """Type of the devices placed on, e.g. ``cuda``; ``None`` on the CPU."""
    cpu_count: float | None = None
    """Logical cores the worker may use, if it knows."""


@attrs.frozen(kw_only=True)
class LaunchSpec:
    """A process to be: its command, what its environment has beyond the worker's own, and how to judge it.

    It is given up as not starting after ``start_deadline``, and killed ``stop_grace`` after it was asked to
    end. Seconds.
    """

    argv: tuple[str, ...]
    env: Mapping[str, str]
    cwd: str | None = None
    readiness: Probe
    liveness: Probe
    start_deadline: float
    stop_grace: float


class Engine(Protocol):
    """One kind of inference engine."""

    @property
    def name(self) -> str:
        """As named inside and in ``EngineBuild.engine``."""

    @property
    def wire_name(self) -> str:
        """As named in the API (``backend``)."""

    @property
    def any_device(self) -> bool:
        """Whether every device will do, rather than those its build says it drives."""

    @property
    def metrics(self) -> Mapping[str, str]:
        """Sample name on the engine's ``/metrics`` → unified name."""

    def serves(self, model: Model, facts: ModelFacts | None) -> bool:
        """Whether it takes this model when no backend is named."""

    def faults(self, model: Model) -> list[str]:
        """What is wrong with the deployment for this engine, a sentence each; nothing wrong is empty."""

    def fetches(self, model: Model) -> bool:
        """Whether this model's files must be on the worker before the start."""

    def context(self, model: Model) -> int | None:
        """Tokens that one answer may take in all, its prompt included; ``None`` where nothing surely bounds them."""

    def launch(self, context: LaunchContext) -> LaunchSpec:
        """Describe the process. The model is one without ``faults``."""
