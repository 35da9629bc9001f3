"""What an engine cannot do with the GPUs that a deployment selects by hand."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from gpustack.domain.device import DeviceId
from gpustack.domain.model import Model

from . import diffusers, vox_box
from .engine import Engine
from .program import programs

_OF_OURS = (vox_box.ENGINE.name, diffusers.ENGINE.name)
"""Engines of our own, whose libraries drive devices of NVIDIA alone."""


def selection_faults(
    engine: Engine, model: Model, selected: Sequence[DeviceId], systems: Mapping[str, str | None]
) -> list[str]:
    """A sentence for each thing that is wrong. ``systems``: the operating system of each worker, as its label says."""
    if engine.any_device or not selected:
        return []
    return [
        *_wrong_types(engine, selected),
        *_wrong_systems(engine, selected, systems),
        *_too_many_workers(engine, model, selected),
    ]


def _wrong_types(engine: Engine, selected: Sequence[DeviceId]) -> list[str]:
    types = dict.fromkeys(one.type for one in selected)
    wanted = _types_of(engine)
    wrong = [kind for kind in types if (kind not in wanted if wanted else kind in _refused_by(engine))]
    if not wrong:
        return []
    of = f"needs GPUs of type {' or '.join(wanted)}" if wanted else "does not run on such GPUs"
    return [f"Backend {engine.wire_name} {of}, and {', '.join(wrong)} is selected"]


def _types_of(engine: Engine) -> tuple[str, ...]:
    """The types that it needs; empty where that depends on the build."""
    program = programs().get(engine.name)
    if engine.name in _OF_OURS:
        return ("cuda",)
    return program.drives if program is not None and program.package is None else ()


def _refused_by(engine: Engine) -> tuple[str, ...]:
    """Types of devices that no build of it drives: its package is for none of their systems."""
    systems = _systems_of(engine)
    return ("mps",) if systems and "darwin" not in systems else ()


def _systems_of(engine: Engine) -> tuple[str, ...]:
    program = programs().get(engine.name)
    if program is None or program.package is None:
        return ()
    return tuple(name.lower() for name in program.package.systems)


def _wrong_systems(
    engine: Engine, selected: Sequence[DeviceId], systems: Mapping[str, str | None]
) -> list[str]:
    wanted = _systems_of(engine)
    faults = []
    for worker in dict.fromkeys(one.worker for one in selected):
        system = systems.get(worker)
        if wanted and system is not None and system.lower() not in wanted:
            faults.append(
                f"Backend {engine.wire_name} runs on {' or '.join(wanted)}, and worker {worker!r} has {system}"
            )
    return faults


def _too_many_workers(engine: Engine, model: Model, selected: Sequence[DeviceId]) -> list[str]:
    workers = dict.fromkeys(one.worker for one in selected)
    if len(workers) < 2 or engine.gang(model, ray=False) is not None:
        return []
    return [
        f"Backend {engine.wire_name} runs on one worker, and GPUs of several are selected ({', '.join(workers)})"
    ]
