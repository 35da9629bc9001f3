"""SGLang: text, vision, embeddings and reranking from safetensors, on one worker or several."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping

import attrs

from gpustack.domain.facts import ModelFacts
from gpustack.domain.memory_use import TermBytes
from gpustack.domain.model import Category, Model
from gpustack.domain.unit import GIB, MIB

from . import parameters
from .engine import Engine, GangPlan, HealthPolicy, LaunchContext, LaunchSpec, Probe, StartOrder
from .memory import SafetensorsMemory
from .memory_log import told_by_sglang
from .program import EngineProgram, PythonPackage
from .repository import (
    FILES,
    LISTENS,
    NAMED,
    OFFLINE,
    PLACES,
    SECRET,
    category_faults,
    number_faults,
    parameter_faults,
    python_of,
    shapes_of,
    source_faults,
)
from .visibility import device_environment

CONTEXT_FLAGS = ("--context-length",)
TENSOR_FLAGS = ("--tensor-parallel-size", "--tp-size", "--tp")
PIPELINE_FLAGS = ("--pipeline-parallel-size", "--pp-size", "--pp")
_POOL_FLAGS = ("--max-total-tokens",)
DATA_FLAGS = ("--data-parallel-size", "--dp-size", "--dp")
SERVED = (Category.LLM, Category.EMBEDDING, Category.RERANKER)
START_SECONDS = 900.0
"""Importing, compiling kernels and recording CUDA graphs, on a busy machine."""
LOAD_BYTES_PER_SECOND = 50 * MIB
SECRETS_FILE = "secret.yaml"
"""SGLang takes its key from its command line, which everybody here can read, or from a file of options."""
INTERFACE_VARIABLES = ("GLOO_SOCKET_IFNAME", "NCCL_SOCKET_IFNAME", "TP_SOCKET_IFNAME")
_VECTORS = "--is-embedding"
_METRICS = "--enable-metrics"

PROGRAM = EngineProgram(
    name="sglang",
    package=PythonPackage(name="sglang", default_version="0.5.23", drives=("cuda",), disk=20 * GIB),
    on_cpu=False,
    advice="install a build of SGLang for them by hand, and have it on PATH (docs/engines.md)",
)

_OURS: Mapping[str, str] = {
    **dict.fromkeys(("--host", "--port", "--fastapi-root-path", "--grpc-mode"), LISTENS),
    **dict.fromkeys(("--model-path", "--model", "--revision", "--download-dir"), FILES),
    "--served-model-name": NAMED,
    "--api-key": SECRET,
    "--admin-api-key": SECRET,
    "--config": "a file of options could set what the worker decides; give the options one by one",
    **dict.fromkeys(
        ("--nnodes", "--node-rank", "--dist-init-addr", "--nccl-init-addr", "--nccl-port"), PLACES
    ),
    **dict.fromkeys(("--base-gpu-id", "--gpu-id-step", "--device"), PLACES),
    **dict.fromkeys(("--ssl-keyfile", "--ssl-certfile", "--ssl-ca-certs"), "TLS ends at the gateway"),
}


@attrs.frozen
class SglangEngine:
    """Models in the layout of Hugging Face, where a deployment names this backend."""

    name: str = "sglang"
    wire_name: str = "sglang"
    any_device: bool = False
    memory: SafetensorsMemory | None = SafetensorsMemory(
        spans_workers=True,
        context=CONTEXT_FLAGS,
        sequences=("--max-running-requests",),
        batch_tokens=("--chunked-prefill-size",),
        tensor_parallel=TENSOR_FLAGS,
        pipeline_parallel=PIPELINE_FLAGS,
        data_parallel=DATA_FLAGS,
        cache_bytes=(),
        fraction=("--mem-fraction-static",),
        quantisation=("--quantization",),
        overrides=("--json-model-override-args",),
        eager=("--disable-cuda-graph",),
        adapter_count=("--max-loras-per-batch",),
    )
    metrics: Mapping[str, str] = attrs.field(factory=dict, repr=False)
    """In ``gpustack/metrics/mapping.py``, since they are not named alike in all versions."""

    def serves(self, model: Model, facts: ModelFacts | None) -> bool:
        return False

    def fetches(self, model: Model) -> bool:
        return True

    def memory_told(self, lines: Iterable[str], *, on_devices: bool) -> TermBytes:
        return told_by_sglang(lines, on_devices=on_devices)

    def faults(self, model: Model) -> list[str]:
        return [
            *source_faults(model, self.wire_name),
            *category_faults(model, self.wire_name, SERVED),
            *parameter_faults(model, _OURS),
            *number_faults(model, *CONTEXT_FLAGS, *TENSOR_FLAGS, *PIPELINE_FLAGS, *DATA_FLAGS),
        ]

    def context(self, model: Model) -> int | None:
        """As told; otherwise as long as the model's own configuration says."""
        return parameters.number_of(model.backend_parameters, *CONTEXT_FLAGS)

    def gang(self, model: Model, *, ray: bool) -> GangPlan | None:
        """One process a worker, which meet at a port of the main one; each follower has a port to say that it lives."""
        return GangPlan(order=StartOrder.TOGETHER, main_ports=1, follower_ports=1)

    def launch(self, context: LaunchContext) -> LaunchSpec:
        follows = context.member > 0
        placement = context.placement
        claims = (placement.claim, *(share.claim for share in placement.subordinates))
        size = sum(claim.ram + sum(claim.vram.values()) for claim in claims)
        probe = Probe(path="/health", period=1.0, timeout=5.0)
        return LaunchSpec(
            argv=(python_of(context), "-m", "sglang.launch_server", *_arguments(context)),
            env=_environment(context),
            health=HealthPolicy(
                # A follower answers as soon as it listens, whatever its head does.
                readiness=None if follows else probe,
                liveness=None if follows else attrs.evolve(probe, period=5.0, timeout=10.0, failures=6),
                start_deadline=START_SECONDS + size / LOAD_BYTES_PER_SECOND,
                stop_grace=5.0 if follows else 20.0,
            ),
            files={}
            if context.api_key is None
            else {SECRETS_FILE: f"api-key: {json.dumps(context.api_key)}\n"},
            install="Install SGLang, or name a backend_version that the worker can install",
        )


def _arguments(context: LaunchContext) -> tuple[str, ...]:
    model, given = context.model, context.model.backend_parameters
    port = context.ports[0] if context.member and context.ports else context.port
    tokens = context.placement.claim.context
    return (
        *("--model-path", context.model_path, "--served-model-name", model.name),
        *("--host", context.host, "--port", str(port)),
        *(() if context.api_key is None else ("--config", f"{context.session_dir}/{SECRETS_FILE}")),
        *(() if parameters.has(given, _METRICS) else (_METRICS,)),
        *(() if tokens is None or parameters.has(given, *CONTEXT_FLAGS) else (CONTEXT_FLAGS[0], str(tokens))),
        *_pool(context),
        *_parallel(context),
        *_gang(context),
        *_duty(model),
        *parameters.tokens(parameters.expanded(given, data_dir=context.data_dir)),
    )


def _pool(context: LaunchContext) -> tuple[str, ...]:
    """Room for as many tokens as were claimed: by itself it takes nearly all that is free."""
    claim = context.placement.claim
    given = (*_POOL_FLAGS, "--mem-fraction-static")
    if not claim.slots or not claim.context or parameters.has(context.model.backend_parameters, *given):
        return ()
    return _POOL_FLAGS[0], str(claim.slots * claim.context)


def _parallel(context: LaunchContext) -> tuple[str, ...]:
    """As placement divided it; else the devices of a worker hold one stage in parallel, and workers are stages."""
    if parameters.has(context.model.backend_parameters, *TENSOR_FLAGS, *PIPELINE_FLAGS, *DATA_FLAGS):
        return ()
    devices, members = shapes_of(context)
    group = context.placement.claim.tensor_parallel
    if group and devices * members % group == 0:
        devices, members = group, devices * members // group
    tensor = ("--tp-size", str(devices)) if devices > 1 else ()
    return (*tensor, *(("--pp-size", str(members)) if members > 1 else ()))


def _gang(context: LaunchContext) -> tuple[str, ...]:
    if context.gang is None:
        return ()
    main = context.gang.main
    return (
        *("--nnodes", str(len(context.gang.members)), "--node-rank", str(context.member)),
        *("--dist-init-addr", f"{main.address}:{main.ports[-1]}"),
        *("--dist-timeout", str(math.ceil(START_SECONDS))),
    )


def _duty(model: Model) -> tuple[str, ...]:
    """A model that embeds or ranks may have the architecture of one that generates."""
    vectors = Category.EMBEDDING in model.categories or Category.RERANKER in model.categories
    return (_VECTORS,) if vectors and not parameters.has(model.backend_parameters, _VECTORS) else ()


def _environment(context: LaunchContext) -> dict[str, str]:
    network: dict[str, str] = {}
    if context.gang is not None:
        network |= {} if context.address is None else {"SGLANG_HOST_IP": context.address}
        network |= {} if context.interface is None else dict.fromkeys(INTERFACE_VARIABLES, context.interface)
    return {
        **device_environment(context.device_type, context.visible_devices),
        **OFFLINE,
        **network,
        **context.model.env,
    }


ENGINE: Engine = SglangEngine()
