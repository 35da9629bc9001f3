"""Where requests for a model go: the replicas that serve it now."""

from __future__ import annotations

from typing import Final

import attrs

from .model import ModelAccess

TARGET_PORT: Final = b"x-target-port"
"""On a request that the gateway sends to a worker: the port of the engine it is for."""
RUNS_LEFT: Final = b"x-gpustack-runs-left"
"""On such a request: to how many connections to the engine the worker may give it. Absent from former servers."""
RUNS: Final = b"x-gpustack-runs"
"""On a worker's answer: to how many connections to the engine it gave the request. Absent from former workers."""
WORKER_FAULT: Final = b"x-gpustack-fault"
"""On answers that a worker gives in place of its engine: ``refused`` when the engine was not asked, else ``broke``."""


@attrs.frozen(kw_only=True)
class Endpoint:
    """A running instance as the gateway reaches it: its worker's forward port, and the engine's port behind it."""

    instance_id: int
    instance_name: str
    worker_id: int
    host: str
    worker_port: int
    engine_port: int
    worker_uuid: str = ""
    direct: bool = False
    """The engine is on this very machine: its port is reached without the worker in between."""
    quiet: bool = False
    """Nothing has been heard of its worker for a while: it is asked only when no other is left."""


@attrs.frozen(kw_only=True)
class ModelRoute:
    """A model name and the endpoints that serve it; none ready is a route with no endpoints."""

    model_id: int
    model_name: str
    categories: tuple[str, ...] = ()
    access: ModelAccess = ModelAccess.AUTHED
    allowed_user_ids: frozenset[int] = frozenset()
    endpoints: tuple[Endpoint, ...] = ()
    context: int | None = None
    """Tokens that one answer may take in all, its prompt included, if that is known."""
    pending_reason: str = ""
    """Why nothing serves it, in a few words for anybody."""
    pending_details: str = ""
    """The same in the words of its instances: of paths, machines and engines, for administrators."""
    keeps_no_prompts: bool = False
    """Its engines are not to work on one request with what they know of another: no request may ask them to."""
    silence: str = ""
    """Which workers with replicas of it have not been heard, and since when; empty when all are."""
