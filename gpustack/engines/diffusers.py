"""Images by pipelines of diffusers (Stable Diffusion and others), served by a program of ours."""

from __future__ import annotations

from collections.abc import Mapping

import attrs

from gpustack.domain.facts import ModelFacts
from gpustack.domain.model import Category, Model

from .engine import Engine, GangPlan, LaunchContext, LaunchSpec
from .launcher import LauncherFlags, launch, one_place_faults
from .memory import SafetensorsMemory

LAUNCHER = "gpustack.launchers.images"
FLAGS = LauncherFlags(
    engine="diffusers",
    wholes=("--max-waiting", "--max-images", "--max-side"),
    choices={"--dtype": ("auto", "float16", "bfloat16", "float32")},
)


@attrs.frozen
class DiffusersEngine:
    """Images after texts, and after other images; on one CUDA device, or slowly on the CPU."""

    name: str = "diffusers"
    wire_name: str = "diffusers"
    any_device: bool = False
    memory: SafetensorsMemory | None = None
    metrics: Mapping[str, str] = attrs.field(
        factory=lambda: {
            "images:requests_running": "gpustack:num_requests_running",
            "images:requests_waiting": "gpustack:num_requests_waiting",
        },
        repr=False,
    )

    def serves(self, model: Model, facts: ModelFacts | None) -> bool:
        """Folders of a pipeline, as their files tell; GGUF files of image models are not served."""
        if model.source.names_gguf:
            return False
        return Category.IMAGE in model.categories or (facts is not None and facts.category is Category.IMAGE)

    def fetches(self, model: Model) -> bool:
        return True

    def faults(self, model: Model) -> list[str]:
        return [*one_place_faults(model, self.name), *FLAGS.faults(model)]

    def context(self, model: Model) -> int | None:
        return None

    def gang(self, model: Model, *, ray: bool) -> GangPlan | None:
        return None

    def launch(self, context: LaunchContext) -> LaunchSpec:
        return launch(LAUNCHER, context.model_path, context)


ENGINE: Engine = DiffusersEngine()
