"""Where requests for a model go: the endpoints that serve it now."""

from __future__ import annotations

from typing import Final

import attrs

from .model import ModelAccess

TARGET_PORT: Final = b"x-target-port"
"""Request header from gateway to worker: the port of the engine that the request is for."""
RUNS_LEFT: Final = b"x-gpustack-runs-left"
"""Request header from gateway to worker: how many connections to the engine it may be tried on. Former servers do not
send it."""
RUNS: Final = b"x-gpustack-runs"
"""Response header of a worker: on how many connections to the engine it tried the request. Former workers do not send
it."""
WORKER_FAULT: Final = b"x-gpustack-fault"
"""Response header of an error that the worker made itself: ``refused`` when the engine was not asked, else
``broke``."""


@attrs.frozen(kw_only=True)
class Endpoint:
    """A running instance as the gateway reaches it: the forward port of its worker, and the port of the engine behind
    it."""

    instance_id: int
    instance_name: str
    worker_id: int
    host: str
    worker_port: int
    engine_port: int
    worker_uuid: str = ""
    direct: bool = False
    """The engine runs on this machine: its port is used directly, without the worker."""
    adapters: tuple[str, ...] = ()
    """Names of its LoRA adapters, in the order in which its engine counts them."""
    quiet: bool = False
    """Its worker has missed heartbeats: it gets requests only when no other endpoint is left."""


@attrs.frozen(kw_only=True)
class RerankForm:
    """What a model or its engine wants of requests to rerank that is not the usual form.

    ``templates``: query and documents in the prompt format of Qwen3-Reranker. ``texts``: the API of Text Embeddings
    Inference.
    """

    templates: bool = False
    texts: bool = False


@attrs.frozen(kw_only=True)
class ModelRoute:
    """A model name and the endpoints that serve it. A model of which nothing is ready has a route without endpoints."""

    model_id: int
    model_name: str
    categories: tuple[str, ...] = ()
    access: ModelAccess = ModelAccess.AUTHED
    allowed_user_ids: frozenset[int] = frozenset()
    endpoints: tuple[Endpoint, ...] = ()
    context: int | None = None
    """Tokens of prompt and answer together that fit into one request; ``None`` if unknown."""
    pending_reason: str = ""
    """Why nothing serves it, in a few words that every client may see."""
    pending_details: str = ""
    """The same with the messages of its instances, which name paths, machines and engines: for administrators."""
    keeps_no_prompts: bool = False
    """Its engines must not reuse the prompt of one request for another: requests that ask for that are refused."""
    rerank: RerankForm | None = None
    """``None``: requests to rerank go to its engines as they are."""
    adapter: str = ""
    """The LoRA adapter that this name asks for; empty for the model itself."""
    adapter_by_scale: bool = False
    """The engine is told of the adapter by a member ``lora`` of each request, not by the name of the model."""
    silence: str = ""
    """Which workers with replicas of it are not heard, and since when; empty when all are."""
