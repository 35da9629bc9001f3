"""What the engines have in common that are HTTP servers of our own (``gpustack/launchers/``): flags, device, health."""

from __future__ import annotations

import difflib
import math
from collections.abc import Mapping

import attrs

from gpustack.domain.model import Model
from gpustack.domain.unit import MIB
from gpustack.nursery.process import module_command

from . import parameters
from .engine import HealthPolicy, LaunchContext, LaunchSpec, Probe
from .visibility import device_environment

KEY_VARIABLE = "GPUSTACK_ENGINE_API_KEY"
DRAIN_SECONDS = 10.0
START_SECONDS = 300.0
LOAD_BYTES_PER_SECOND = 50 * MIB
"""The speed of a slow disk."""
_MOST_THREADS = 64
_LONGEST_NUMBER = 9
OURS: Mapping[str, str] = {
    **dict.fromkeys(("--host", "--port"), "the worker chooses where it listens"),
    "--model": "the model's source says where it is",
    "--served-model-name": "the deployment's name is what it is called",
    "--device": "the scheduler chooses the device; to pick one use gpu_selector",
    "--cpu-threads": "the worker says how many cores it has",
    "--drain-seconds": "the worker says how long it waits",
}
"""Flags that users may not set, and why."""


@attrs.frozen(kw_only=True)
class LauncherFlags:
    """The flags of a program that users may set, by the kind of their values, and those that they may not."""

    engine: str
    wholes: tuple[str, ...] = ()
    texts: tuple[str, ...] = ()
    choices: Mapping[str, tuple[str, ...]] = attrs.field(factory=dict)
    switches: tuple[str, ...] = ()
    ours: Mapping[str, str] = OURS

    @property
    def known(self) -> tuple[str, ...]:
        return (*self.wholes, *self.texts, *self.choices, *self.switches)

    def faults(self, model: Model) -> list[str]:
        """A sentence for each parameter that is wrong."""
        return [
            fault
            for one in parameters.read(model.backend_parameters)
            if (fault := self._fault(one.flag, one.value)) is not None
        ]

    def _fault(self, flag: str, value: str | None) -> str | None:
        if not flag:
            return f"backend_parameters: {value!r} follows no flag"
        if flag in self.ours:
            return f"{flag} cannot be set: {self.ours[flag]}"
        if flag not in self.known:
            near = difflib.get_close_matches(flag, self.known, n=1)
            return f"{self.engine} has no parameter {flag}" + (f"; did you mean {near[0]}?" if near else "")
        if flag in self.switches:
            return None if value is None else f"{flag} takes no value"
        if flag in self.wholes:
            good = value is not None and _is_positive(value)
            return None if good else f"{flag} needs a whole number of at least 1, not {value!r}"
        if value is None:
            return f"{flag} needs a value"
        among = self.choices.get(flag, (value,))
        return None if value in among else f"{flag} must be one of {', '.join(among)}, not {value!r}"


def one_place_faults(model: Model, engine: str) -> list[str]:
    """What is wrong where an engine that runs on one device is asked to run on several, or gets a GGUF file."""
    faults = []
    if model.source.names_gguf:
        faults.append(f"{engine} reads no GGUF files; for those set backend llama-box")
    if model.distributed_inference_across_workers:
        faults.append(f"{engine} runs on one worker: distributed_inference_across_workers must not be set")
    if model.gpu_selector is not None and len(model.gpu_selector.gpu_ids) > 1:
        faults.append(f"{engine} runs on one GPU: pick one at most")
    return faults


def launch(module: str, path: str, context: LaunchContext) -> LaunchSpec:
    """The process of a program of ours, for the model at ``path``."""
    model, devices = context.model, context.visible_devices
    size = context.placement.claim.ram + sum(context.placement.claim.vram.values())
    given = parameters.expanded(model.backend_parameters, data_dir=context.data_dir)
    return LaunchSpec(
        argv=(
            *module_command(module),
            *("--model", path),
            *("--served-model-name", model.name),
            *("--host", context.host, "--port", str(context.port)),
            *("--device", _device(devices)),
            *_threads(context.cpu_count),
            *("--drain-seconds", f"{DRAIN_SECONDS:g}"),
            *parameters.tokens(given),
        ),
        env={
            **_device_environment(devices),
            # What clients upload lies in files: /tmp is often memory, and they would fill it.
            "TMPDIR": context.data_dir,
            # ONNX Runtime, which listens for speech and speaks, tells its makers of the models that it loads.
            "ORT_DISABLE_TELEMETRY": "1",
            **model.env,
            **({} if context.api_key is None else {KEY_VARIABLE: context.api_key}),
        },
        health=HealthPolicy(
            readiness=Probe(path="/health", period=0.5, timeout=2.0),
            liveness=Probe(path="/health", period=5.0, timeout=5.0, failures=6),
            start_deadline=START_SECONDS + size / LOAD_BYTES_PER_SECOND,
            stop_grace=DRAIN_SECONDS + 5.0,
        ),
    )


def _device(devices: tuple[str, ...]) -> str:
    """One that has no number of its own, as a MIG instance, is the only one that is seen."""
    if not devices:
        return "cpu"
    return f"cuda:{devices[0] if devices[0].isdecimal() else 0}"


def _device_environment(devices: tuple[str, ...]) -> dict[str, str]:
    """All devices are seen, in the driver's order, and ``--device`` names one; without any none is seen."""
    if devices and devices[0].isdecimal():
        return {"CUDA_DEVICE_ORDER": "PCI_BUS_ID"}
    return device_environment("cuda" if devices else None, devices)


def _threads(cpu_count: float | None) -> tuple[str, ...]:
    if cpu_count is None:
        return ()
    return ("--cpu-threads", str(min(max(1, math.floor(cpu_count)), _MOST_THREADS)))


def _is_positive(text: str) -> bool:
    return text.isascii() and text.isdigit() and len(text) <= _LONGEST_NUMBER and int(text) > 0
