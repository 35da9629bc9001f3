"""Any program that serves HTTP: a command template, a health path and an environment.

They stand in the deployment, or in the administrators' backend that it names (``Model.backend_spec``).
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Mapping

import attrs

from gpustack.domain.facts import ModelFacts
from gpustack.domain.model import Model

from . import parameters
from .engine import Engine, GangPlan, HealthPolicy, LaunchContext, LaunchSpec, Probe
from .memory import SafetensorsMemory
from .visibility import device_environment

HEALTH_PATH = "/v1/models"
PLACEHOLDERS = ("port", "host", "model_path", "served_name", "data_dir", "gpu_count", "devices")
KEY_PLACEHOLDER = "api_key"
"""Filled in in the environment only: all users of the machine can read command lines."""
KEY_VARIABLES = ("GPUSTACK_ENGINE_API_KEY", "LLAMA_API_KEY", "VLLM_API_KEY")
"""Ours, and those from which programs that people run this way take their key by themselves."""
_OWN_COMMAND = "A command is for backend 'custom'; this deployment runs backend {!r}, which has its own"
_CONTEXT_FLAGS = ("--max-model-len", "--context-length", "--ctx-size")
_PLACEHOLDER = re.compile(r"\{([a-z_]+)\}")
_MEANT = re.compile(r"(?<![${])\{([A-Za-z][A-Za-z0-9_-]*)\}(?!\})")
"""What looks like a placeholder. Shells have ``${NAME}`` of their own, and JSON its quotes."""
_DOUBLED = re.compile(r"\{\{\s*([A-Za-z0-9_-]+)\s*\}\}")


@attrs.frozen
class CustomEngine:
    """Runs the command of the deployment, or of its backend, which then gives ``wire_name`` and ``metrics``.

    Its need of memory is unknown but for what the deployment claims.
    """

    name: str = "custom"
    wire_name: str = "custom"
    any_device: bool = True
    memory: SafetensorsMemory | None = None
    metrics: Mapping[str, str] = attrs.field(factory=dict, repr=False)

    def serves(self, model: Model, facts: ModelFacts | None) -> bool:
        """Every deployment that has a command."""
        return bool(model.command)

    def fetches(self, model: Model) -> bool:
        """Only when the command asks for the path."""
        return "{model_path}" in command_of(model)

    def faults(self, model: Model) -> list[str]:
        if model.backend_spec is not None:
            faults = [] if not model.command else [_OWN_COMMAND.format(model.backend_spec.backend)]
        elif not command_of(model).strip():
            return ["Backend 'custom' needs a command, e.g. 'my-server --port {port} --model {model_path}'"]
        else:
            faults = command_faults(command_of(model))
        if parameters.has(model.backend_parameters, "--port"):
            faults.append(
                "Backend parameter --port cannot be set: the command says with {port} where it listens"
            )
        return [*faults, *health_path_faults(model.health_path)]

    def context(self, model: Model) -> int | None:
        """As its command says, by the flags of the engines that people run this way."""
        try:
            words = (*shlex.split(command_of(model)), *model.backend_parameters)
        except ValueError:
            return None
        tokens = parameters.number_of(words, *_CONTEXT_FLAGS)
        return tokens if tokens is not None and tokens > 0 else None

    def gang(self, model: Model, *, ray: bool) -> GangPlan | None:
        return None

    def launch(self, context: LaunchContext) -> LaunchSpec:
        model = context.model
        values = {
            "port": str(context.port),
            "host": context.host,
            "model_path": context.model_path,
            "served_name": model.name,
            "data_dir": context.data_dir,
            "gpu_count": str(len(context.placement.gpu_indexes)),
            "devices": ",".join(context.visible_devices),
        }
        secret_values = values if context.api_key is None else {**values, KEY_PLACEHOLDER: context.api_key}
        # Words first, values after: a name with a space or a quote stays one argument.
        words = [_filled(word, values) for word in shlex.split(command_of(model))]
        extra = parameters.expanded(model.backend_parameters, data_dir=context.data_dir)
        spec = model.backend_spec
        path = model.health_path or (spec.health_path if spec else None) or HEALTH_PATH
        env = {**(spec.env if spec else {}), **model.env}
        return LaunchSpec(
            argv=(*words, *parameters.tokens(extra)),
            install=(spec.install if spec else None) or "",
            env={
                **({} if context.api_key is None else dict.fromkeys(KEY_VARIABLES, context.api_key)),
                **device_environment(context.device_type, context.visible_devices),
                **{name: _filled(value, secret_values) for name, value in env.items()},
            },
            health=HealthPolicy(
                readiness=Probe(path=path, period=1.0, timeout=3.0),
                liveness=Probe(path=path, period=10.0, timeout=10.0, failures=6),
                start_deadline=1800.0,
                stop_grace=15.0,
            ),
        )


def command_of(model: Model) -> str:
    """The command template: of the backend that the deployment names, else its own; empty if it has none."""
    return model.command or "" if model.backend_spec is None else model.backend_spec.command


def command_faults(command: str) -> list[str]:
    """What is wrong with a command template, a sentence each."""
    faults = []
    try:
        if not shlex.split(command):
            return ["The command is empty"]
    except ValueError as error:
        faults.append(f"The command cannot be split into words: {error}")
    names = _PLACEHOLDER.findall(command)
    if "port" not in names:
        faults.append("The command must contain {port}: the worker chooses the port it listens on")
    if KEY_PLACEHOLDER in names:
        faults.append(
            "The command has {api_key}, which all users of the machine could read there: put it into env, "
            f"or have the program read {KEY_VARIABLES[0]}"
        )
    if doubled := _DOUBLED.search(command):
        faults.append(f"The command has {doubled[0]}: a placeholder stands in single braces")
    known = ", ".join(f"{{{name}}}" for name in PLACEHOLDERS)
    return faults + [
        f"The command has {{{name}}}, which is none of {known}"
        for name in dict.fromkeys(_MEANT.findall(command))
        if name not in (*PLACEHOLDERS, KEY_PLACEHOLDER)
    ]


def health_path_faults(path: str | None) -> list[str]:
    """What is wrong with the path that tells whether an engine is well."""
    return [] if path is None or path.startswith("/") else [f"health_path {path!r} must begin with '/'"]


def _filled(text: str, given: Mapping[str, str]) -> str:
    return _PLACEHOLDER.sub(lambda found: given.get(found[1], found[0]), text)


ENGINE: Engine = CustomEngine()
