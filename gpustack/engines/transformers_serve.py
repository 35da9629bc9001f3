"""``transformers serve``: chat and transcriptions of whatever Transformers can load. It is slow, and has no metrics."""

from __future__ import annotations

import re
from collections.abc import Mapping

import attrs

from gpustack.domain.facts import ModelFacts
from gpustack.domain.model import Category, Model
from gpustack.domain.unit import GIB

from . import parameters
from .engine import Engine, FolderView, GangPlan, HealthPolicy, LaunchContext, LaunchSpec, Probe
from .memory import ONE_PLACE, SafetensorsMemory
from .program import EngineProgram, PythonPackage
from .repository import (
    FILES,
    LISTENS,
    OFFLINE,
    PLACES,
    category_faults,
    parameter_faults,
    source_faults,
)
from .visibility import device_environment

SERVED = (Category.LLM, Category.SPEECH_TO_TEXT)
PROGRAM = EngineProgram(
    name="transformers",
    package=PythonPackage(
        name="transformers",
        extras=("serving",),
        default_version="5.23.0",
        # The last three read the sounds that are to be written down, for which older versions take librosa.
        beside=("torch", "accelerate", "python-multipart", "soundfile", "soxr"),
        drives=("cuda",),
        disk=8 * GIB,
        pins=(("5.22.0", ("librosa",)),),
    ),
    advice="install transformers[serving] with a torch for them by hand, and have it on PATH (docs/engines.md)",
)

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,199}")
_OURS: Mapping[str, str] = {
    **dict.fromkeys(("--host", "--port", "--enable-cors"), LISTENS),
    **dict.fromkeys(("--force-model", "--model-timeout"), FILES),
    "--device": PLACES,
    "--trust-remote-code": "this engine asks for no key, so any user of the machine could have it load their code",
}


@attrs.frozen
class TransformersEngine:
    """Models in the layout of Hugging Face, where a deployment names this backend."""

    name: str = "transformers-serve"
    wire_name: str = "transformers"
    any_device: bool = False
    memory: SafetensorsMemory | None = attrs.evolve(
        ONE_PLACE,
        batch_tokens=("--cb-max-batch-tokens",),
        fraction=("--cb-max-memory-percent",),
        quantisation=("--quantization",),
    )
    metrics: Mapping[str, str] = attrs.field(factory=dict, repr=False)

    def serves(self, model: Model, facts: ModelFacts | None) -> bool:
        return False

    def fetches(self, model: Model) -> bool:
        return True

    def faults(self, model: Model) -> list[str]:
        return [
            *source_faults(model, self.wire_name),
            *category_faults(model, self.wire_name, SERVED),
            *parameter_faults(model, _OURS),
            *_name_faults(model),
        ]

    def context(self, model: Model) -> int | None:
        return None

    def gang(self, model: Model, *, ray: bool) -> GangPlan | None:
        return None

    def launch(self, context: LaunchContext) -> LaunchSpec:
        """It knows no key, so that it listens on loopback alone; and it calls a model by the path that it was given.

        Requests call it by the name of the deployment, which is therefore made such a path.
        """
        model = context.model
        probe = Probe(path="/health", period=1.0, timeout=5.0)
        return LaunchSpec(
            argv=(
                context.build.path or PROGRAM.name,
                *("serve", model.name, "--host", context.host, "--port", str(context.port)),
                *("--device", "auto" if context.gpu_indexes else "cpu"),
                *parameters.tokens(parameters.expanded(model.backend_parameters, data_dir=context.data_dir)),
            ),
            env={
                **device_environment(context.device_type, context.visible_devices),
                **OFFLINE,
                **model.env,
            },
            health=HealthPolicy(
                readiness=probe,
                # While it computes it may answer nothing else.
                liveness=attrs.evolve(probe, period=10.0, timeout=30.0, failures=10),
                start_deadline=1800.0,
                stop_grace=15.0,
            ),
            views={model.name: FolderView(source=context.model_path, changes={})},
            in_session=True,
            install="Install transformers[serving] with torch, or name a backend_version that the worker can install",
        )


def _name_faults(model: Model) -> list[str]:
    if _NAME.fullmatch(model.name):
        return []
    return [
        f"Backend transformers serves a deployment only under a name of letters, digits, dots, dashes and "
        f"underscores, not {model.name!r}"
    ]


ENGINE: Engine = TransformersEngine()
