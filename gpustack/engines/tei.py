"""Text Embeddings Inference (``text-embeddings-router``): embeddings and reranking from safetensors, on one device."""

from __future__ import annotations

from collections.abc import Mapping

import attrs

from gpustack.domain.facts import ModelFacts
from gpustack.domain.model import Category, Model

from . import parameters
from .engine import Engine, GangPlan, HealthPolicy, LaunchContext, LaunchSpec, Probe
from .memory import ONE_PLACE, SafetensorsMemory
from .program import EngineProgram
from .repository import (
    FILES,
    LISTENS,
    NAMED,
    OFFLINE,
    SECRET,
    category_faults,
    number_faults,
    parameter_faults,
    source_faults,
)
from .visibility import device_environment

SERVED = (Category.EMBEDDING, Category.RERANKER)
KEY_VARIABLE = "API_KEY"
INSTALL = "Put text-embeddings-router on PATH: build it from its sources, or copy it out of its container"

PROGRAM = EngineProgram(name="text-embeddings-router", drives=("cuda",), advice=INSTALL)

_OURS: Mapping[str, str] = {
    **dict.fromkeys(("--hostname", "--port", "-p", "--uds-path", "--prometheus-port"), LISTENS),
    **dict.fromkeys(("--model-id", "--revision", "--huggingface-hub-cache"), FILES),
    "--served-model-name": NAMED,
    "--api-key": SECRET,
    **dict.fromkeys(
        ("--hf-token", "--hf-api-token"),
        "all users of the machine could read it there: put HF_TOKEN into env",
    ),
}


@attrs.frozen
class TeiEngine:
    """Encoders in the layout of Hugging Face, where a deployment names this backend."""

    name: str = "text-embeddings-inference"
    wire_name: str = "tei"
    any_device: bool = False
    memory: SafetensorsMemory | None = attrs.evolve(
        ONE_PLACE, sequences=("--max-concurrent-requests",), batch_tokens=("--max-batch-tokens",)
    )
    metrics: Mapping[str, str] = attrs.field(
        factory=lambda: {
            "te_queue_size": "gpustack:num_requests_waiting",
            "te_request_success": "gpustack:request_success",
            "te_request_duration": "gpustack:e2e_request_latency_seconds",
        },
        repr=False,
    )

    def serves(self, model: Model, facts: ModelFacts | None) -> bool:
        return False

    def fetches(self, model: Model) -> bool:
        return True

    def faults(self, model: Model) -> list[str]:
        return [
            *source_faults(model, self.wire_name),
            *category_faults(model, self.wire_name, SERVED),
            *parameter_faults(model, _OURS),
            *number_faults(
                model, "--max-concurrent-requests", "--max-batch-tokens", "--max-client-batch-size"
            ),
        ]

    def context(self, model: Model) -> int | None:
        return None

    def gang(self, model: Model, *, ray: bool) -> GangPlan | None:
        return None

    def launch(self, context: LaunchContext) -> LaunchSpec:
        model = context.model
        probe = Probe(path="/health", period=1.0, timeout=5.0)
        return LaunchSpec(
            argv=(
                context.build.path or PROGRAM.name,
                *("--model-id", context.model_path, "--served-model-name", model.name),
                *("--hostname", context.host, "--port", str(context.port)),
                *parameters.tokens(parameters.expanded(model.backend_parameters, data_dir=context.data_dir)),
            ),
            env={
                **device_environment(context.device_type, context.visible_devices),
                **OFFLINE,
                **model.env,
                **({} if context.api_key is None else {KEY_VARIABLE: context.api_key}),
            },
            health=HealthPolicy(
                readiness=probe,
                liveness=attrs.evolve(probe, period=5.0, timeout=10.0, failures=6),
                start_deadline=900.0,
                stop_grace=15.0,
            ),
            install=INSTALL,
        )


ENGINE: Engine = TeiEngine()
