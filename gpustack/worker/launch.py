"""What the start of any member of an instance needs: its engine, files, ports, and the description of its process."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack

import attrs

from gpustack.artifacts.repository import FileExtras
from gpustack.domain.artifact import LoraAdapter
from gpustack.domain.facts import FileFormat, ModelFacts
from gpustack.domain.instance import ModelInstance
from gpustack.domain.model import Model
from gpustack.domain.worker import EngineBuild
from gpustack.engines import parameters
from gpustack.engines.adapter import Adapter, loads_while_running, selection_of
from gpustack.engines.engine import Engine, Gang, GangPlan, LaunchContext, LaunchSpec, ListsFlags, PortPool
from gpustack.engines.llama_cpp import wanted_projector
from gpustack.engines.program import programs
from gpustack.engines.registry import adapter_faults, engine_for
from gpustack.errors import Invalid, Unavailable
from gpustack.hardware.address import find_interface
from gpustack.nursery.limiter import threads
from gpustack.nursery.log_file import LogFile
from gpustack.worker import session_folder
from gpustack.worker.adapter_files import fetch_adapter
from gpustack.worker.context import WorkerContext
from gpustack.worker.engine_environment import program_environment
from gpustack.worker.engine_process import EngineSeat

_LOOK_FOR_PORT_EVERY = 5.0
_threads = threads("launches", 1)


class InstanceFailure(Exception):
    """A member of an instance ended without being asked to. ``str()`` is the sentence for the record."""


@attrs.frozen
class LaunchInputs:
    """What a start needs besides ports."""

    engine: Engine
    model_path: str
    mmproj_path: str | None
    build: EngineBuild | None = None
    adapters: tuple[Adapter, ...] = ()


@attrs.frozen
class LaunchTerms:
    """With what the process of a member is to start: its ports, its key, and whom its gang is made of."""

    ports: tuple[int, ...]
    key: str | None
    gang: Gang | None = None
    ray_environment: Mapping[str, str] | None = attrs.field(default=None, repr=False)
    """With what it reaches the cluster's Ray, where it runs on that."""


async def fetch_files(
    instance: ModelInstance,
    model: Model,
    context: WorkerContext,
    progress: Callable[[float], None],
    *,
    needed: bool = True,
) -> LaunchInputs:
    """The engine to run and its files, fetched if they are missing. ``needed``: whether this member needs files."""
    try:
        engine = engine_for(model)
    except Invalid:
        if model.backend:
            raise
        engine = None  # only its files tell
    if engine is not None and not (needed and engine.fetches(model)):
        return LaunchInputs(engine, "", None)
    projector = wanted_projector(model) or None
    files = await context.files.ensure(
        instance.source, progress=progress, projector=projector, extras=_extras(model)
    )
    path = files.main_path
    if engine is None:
        engine = engine_for(model, ModelFacts(format=_format((path, *files.paths))))
    adapters = tuple(
        [
            await fetch_adapter(selection_of(engine), model, one, context.files, progress)
            for one in _at_start(engine, model, instance)
        ]
    )
    return LaunchInputs(engine, path, files.mmproj_path, adapters=adapters)


def _at_start(engine: Engine, model: Model, instance: ModelInstance) -> tuple[LoraAdapter, ...]:
    """The adapters to start with. One that came to a running engine and that it did not take, as the record shows, is
    not to keep it from starting: it is tried again once it runs. Raises ``Invalid`` where the engine takes none."""
    if faults := adapter_faults(engine, model):
        raise Invalid(*faults)
    is_gang = instance.placement is not None and bool(instance.placement.subordinates)
    if is_gang or not loads_while_running(engine, model):
        return model.lora_adapters
    return tuple(adapter for adapter in model.lora_adapters if adapter.name in instance.lora_adapters)


async def with_build(
    inputs: LaunchInputs, seat: EngineSeat, model: Model, context: WorkerContext, tell: Callable[[str], None]
) -> LaunchInputs:
    """With the build to start, installed first if that version is not here; ``tell`` is told how far that is.

    Raises ``InstanceFailure`` before that for a deployment with faults, ``GpustackError`` when there is no such build.
    """
    if faults := inputs.engine.faults(model):
        raise InstanceFailure("; ".join(faults))
    log_file = LogFile(context.log_file(seat.instance.id, seat.member))
    return attrs.evolve(
        inputs,
        build=await context.environments.build_for(inputs.engine.name, model, tell=tell, log_file=log_file),
    )


def _format(paths: Sequence[str]) -> FileFormat:
    """The format of a model's weights, as the names of its files tell; its own file is the first."""
    if paths[0].lower().endswith(".gguf"):
        return FileFormat.GGUF
    is_safetensors = any(path.lower().endswith(".safetensors") for path in paths)
    return FileFormat.SAFETENSORS if is_safetensors else FileFormat.UNKNOWN


def _extras(model: Model) -> FileExtras:
    """What a deployment's parameters ask of a repository: code where it may run, weights in the form they name."""
    given = model.backend_parameters
    form = parameters.value_of(given, "--load-format", "--config-format")
    return FileExtras(
        code=parameters.has(given, "--trust-remote-code") or form == "pt", consolidated=form == "mistral"
    )


async def lease_ports(
    count: int,
    pool: PortPool,
    seat: EngineSeat,
    context: WorkerContext,
    leases: ExitStack,
    tell: Callable[[str], None],
) -> tuple[int, ...]:
    """So many ports of a range; while none is free, ``tell`` is told so, and one that is given back is waited for.

    The main member's first is for requests, all others for the members among themselves.
    """
    ports = context.leases(pool)
    found: list[int] = []
    while len(found) < count:
        inner = bool(seat.member or found)
        try:
            found.append(leases.enter_context(ports.lease(seat.holder, inner=inner)))
        except Unavailable as error:
            tell(f"Waiting for a port: {error}")
            await ports.freed(_LOOK_FOR_PORT_EVERY)
    return tuple(found)


def plan_of(engine: Engine, model: Model, instance: ModelInstance, context: WorkerContext) -> GangPlan | None:
    """How the members of an instance start; ``None`` for one that runs alone. Raises ``InstanceFailure`` where its
    engine cannot run as several processes."""
    if instance.placement is None or not instance.placement.subordinates:
        return None
    plan = engine.gang(model, ray=context.ray is not None)
    if plan is None:
        raise InstanceFailure(f"{engine.name} cannot run on several workers; this is a fault of the server")
    return plan


async def describe_launch(
    seat: EngineSeat, model: Model, inputs: LaunchInputs, terms: LaunchTerms, context: WorkerContext
) -> LaunchSpec:
    """The process to start. Raises ``InstanceFailure``."""
    engine, placement = inputs.engine, seat.instance.placement
    if placement is None:
        raise InstanceFailure("The instance was assigned without a place; this is a fault of the server")
    build = inputs.build
    assert build is not None, "it was found, or installed, before"
    known = None if context.flag_lists is None else await context.flag_lists.of(engine, build)
    if known is not None and isinstance(engine, ListsFlags) and (faults := engine.faults_for(model, known)):
        raise InstanceFailure("; ".join(faults))
    address, interface = None, None
    if terms.gang is not None:
        address = await _threads.run(context.address)
        interface = await _threads.run(find_interface, address)
    launch = engine.launch(
        LaunchContext(
            model=model,
            instance=seat.instance,
            placement=placement,
            model_path=inputs.model_path,
            mmproj_path=inputs.mmproj_path,
            adapters=inputs.adapters,
            port=terms.ports[0] if terms.ports else 0,
            ports=terms.ports,
            api_key=terms.key,
            build=build,
            data_dir=str(context.data_dir),
            session_dir=str(session_folder.of(context.state_file(seat.instance.id, seat.member))),
            device_type=context.device_type(placement.share(seat.member).gpu_indexes),
            device_names=context.device_names(placement.share(seat.member).gpu_indexes),
            cpu_count=context.cpu_count,
            member=seat.member,
            gang=terms.gang,
            address=address,
            interface=interface,
            extra_arguments=context.rpc_server_args,
            ray_environment=terms.ray_environment,
            device_memory=context.device_memory(),
            known_flags=known,
            cann_version=context.cann_version,
            gfx=context.gfx(placement.share(seat.member).gpu_indexes),
            cann_chip=context.cann_chip(placement.share(seat.member).gpu_indexes),
        )
    )
    beside = program_environment(build, programs().get(engine.name), os.environ)
    return attrs.evolve(launch, env={**beside, **launch.env})
