"""The life of an instance: files → port → command → process → readiness → serve and probe → stop."""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable
from contextlib import ExitStack
from functools import partial
from typing import NoReturn

import attrs
import trio

from gpustack.domain.facts import FileFormat, ModelFacts
from gpustack.domain.instance import ModelInstance, Placement
from gpustack.domain.lifecycle import InstanceState
from gpustack.domain.model import Model
from gpustack.engines import parameters
from gpustack.engines.engine import Engine, LaunchContext, LaunchSpec
from gpustack.engines.llama_cpp import PROJECTOR_FLAGS, wanted_projector
from gpustack.engines.registry import engine_for
from gpustack.errors import GpustackError, Invalid, Unavailable
from gpustack.nursery.limiter import threads
from gpustack.nursery.log_file import keep_trimmed
from gpustack.worker.context import WorkerContext
from gpustack.worker.engine_exit import describe_exit
from gpustack.worker.engine_key import SECRET, make_engine_key, without_keys
from gpustack.worker.engine_process import EngineProcess, adopt_engine, start_engine
from gpustack.worker.environment import inherited_environment
from gpustack.worker.race import first_of
from gpustack.worker.telling import InstanceReporter

__all__ = ["EngineStop", "InstanceFailure", "WorkerContext", "inherited_environment", "run_instance"]

log = logging.getLogger(__name__)

_LOG_LIMIT = 64 << 20
_LOOK_AT_LOG_EVERY = 30.0
_LOOK_FOR_PORT_EVERY = 5.0
_threads = threads("engine logs", 2)


class InstanceFailure(Exception):
    """A life that ended without being asked to. ``str()`` is the sentence for its record."""


@attrs.define
class EngineStop:
    """Set before a life is cancelled because the instance is not wanted any more: then its engine ends too."""

    wanted: bool = False


@attrs.frozen
class _LaunchInputs:
    """What a start needs besides a port."""

    engine: Engine
    model_path: str
    mmproj_path: str | None


async def run_instance(
    instance: ModelInstance,
    model: Model | None,
    world: WorkerContext,
    telling: InstanceReporter,
    ending: EngineStop,
    served: Callable[[], None],
) -> NoReturn:
    """Live one life. Never returns: raises ``InstanceFailure`` when it ends by itself, else is cancelled.

    ``model`` is the deployment as of the instance's generation; without it, a running engine is adopted but none is
    started. ``served`` is called when the engine became ready. A life that failed ends its engine; one that is
    cancelled ends it when the instance is not wanted any more or the daemon is being stopped. In any other case (the
    daemon crashes, or hands over) the engine goes on, for the next daemon to adopt.
    """
    try:
        with ExitStack() as ports:
            engine, projector = await adopt_engine(instance, world, ports), None
            if engine is None:
                telling.say(InstanceState.INITIALIZING)
                await world.cleared.wait()
                materials = await _gather(instance, model, world, telling)
                port = await _lease_port(instance, world, telling, ports)
                key = make_engine_key(world.rng)
                launch = await _describe(instance, model, materials, port, key, world)
                projector = parameters.value_of(launch.argv, *PROJECTOR_FLAGS)
                telling.say(
                    InstanceState.STARTING, port=port, ports=(port,), resolved_path=materials.model_path
                )
                engine = await start_engine(launch, instance, port, world, {SECRET: key})
                log.log(
                    logging.DEBUG if telling.tries_again else logging.INFO,
                    "Started an engine: instance=%s pid=%d port=%d",
                    instance.name,
                    engine.group.pid,
                    port,
                )
            ports.enter_context(world.keys.of(engine.port, engine.secrets))
            failed = False
            try:
                await _become_ready(engine, world, telling, projector)
                served()
                telling.say(
                    InstanceState.RUNNING,
                    _note(instance.placement),
                    pid=engine.group.pid,
                    port=engine.port,
                    ports=(engine.port,),
                )
                await _serve(engine, world)
            except (InstanceFailure, GpustackError):
                failed = True
                raise
            finally:
                if world.intent.stopping and not (failed or ending.wanted):
                    # Before the engine ends, so that nobody is sent to it any more.
                    telling.say(
                        InstanceState.INITIALIZING,
                        "Its worker was stopped; the engine starts again with it, or elsewhere",
                    )
                await engine.let_go(end=failed or ending.wanted or world.intent.stopping)
    except GpustackError as error:
        raise InstanceFailure(str(error)) from error
    raise AssertionError("a life ends by failing, or by being cancelled")


async def _gather(
    instance: ModelInstance, model: Model | None, world: WorkerContext, telling: InstanceReporter
) -> _LaunchInputs:
    """The engine to run, and its files, fetched if they are missing."""
    if model is None:
        raise InstanceFailure(
            f"The deployment was changed since this replica (generation {instance.generation}) was made; "
            "it is about to be replaced"
        )
    engine = _named_engine(model)
    if engine is not None and not engine.fetches(model):
        return _LaunchInputs(engine, "", None)

    def progress(percent: float) -> None:
        telling.say(InstanceState.DOWNLOADING, download_progress=percent)

    named = wanted_projector(model)
    files = await world.files.ensure(instance.source, progress=progress, projector=named or None)
    path = files.main_path
    return _LaunchInputs(engine or engine_for(model, _facts_of(path)), path, files.mmproj_path)


def _named_engine(model: Model) -> Engine | None:
    """The engine that the deployment itself tells; ``None`` where only its files do."""
    try:
        return engine_for(model)
    except Invalid:
        if model.backend:
            raise
        return None


def _facts_of(path: str) -> ModelFacts:
    gguf = path.lower().endswith(".gguf")
    return ModelFacts(format=FileFormat.GGUF if gguf else FileFormat.SAFETENSORS)


async def _lease_port(
    instance: ModelInstance, world: WorkerContext, telling: InstanceReporter, ports: ExitStack
) -> int:
    """A port; while there is none, the instance says so and waits for one to be given back."""
    while True:
        try:
            return ports.enter_context(world.ports.lease(instance.name))
        except Unavailable as error:
            telling.say(InstanceState.INITIALIZING, f"Waiting for a port: {error}")
            await world.ports.freed(_LOOK_FOR_PORT_EVERY)


async def _describe(
    instance: ModelInstance,
    model: Model | None,
    materials: _LaunchInputs,
    port: int,
    key: str,
    world: WorkerContext,
) -> LaunchSpec:
    engine, placement = materials.engine, instance.placement
    assert model is not None
    if placement is None:
        raise InstanceFailure("The instance was assigned without a place; this is a fault of the server")
    faults = engine.faults(model)
    if faults:
        raise InstanceFailure("; ".join(faults))
    build = next((b for b in await world.builds() if b.engine == engine.name), None)
    if build is None:
        raise InstanceFailure(f"This worker has no {engine.name} engine; run 'gpustack doctor' there")
    return engine.launch(
        LaunchContext(
            model=model,
            instance=instance,
            placement=placement,
            model_path=materials.model_path,
            mmproj_path=materials.mmproj_path,
            port=port,
            api_key=key,
            build=build,
            data_dir=str(world.data_dir),
            device_type=world.device_type(placement),
            cpu_count=world.cpu_count,
        )
    )


async def _become_ready(
    engine: EngineProcess, world: WorkerContext, telling: InstanceReporter, projector: str | None
) -> None:
    port, terms = engine.port, engine.terms
    if engine.adopted:
        if await world.prober.answers(port, terms.readiness):
            return
        telling.say(InstanceState.STARTING, pid=engine.group.pid, port=port, ports=(port,))
    with trio.move_on_after(engine.start_left) as patience:
        came = await first_of(
            partial(world.prober.until_ready, port, terms.readiness), engine.group.wait, _bounded_log(engine)
        )
        if came == 1:
            raise InstanceFailure(await _obituary(engine, ready=False, projector=projector))
    if patience.cancelled_caught:
        raise InstanceFailure(
            f"The engine did not answer {terms.readiness.path} within {terms.start_deadline:g} s of its start; "
            "see its log"
        )


async def _serve(engine: EngineProcess, world: WorkerContext) -> NoReturn:
    liveness = engine.terms.liveness
    hung = partial(world.prober.until_dead, engine.port, liveness)
    if await first_of(engine.group.wait, hung, _bounded_log(engine)) == 0:
        raise InstanceFailure(await _obituary(engine, ready=True))
    silent = liveness.period * liveness.failures
    raise InstanceFailure(
        f"The engine ran, but did not answer {liveness.path} for {silent:g} s and more, so it was ended"
    )


def _bounded_log(engine: EngineProcess) -> Callable[[], Awaitable[object]]:
    return partial(keep_trimmed, engine.log_file, limit=_LOG_LIMIT, period=_LOOK_AT_LOG_EVERY)


async def _obituary(engine: EngineProcess, *, ready: bool, projector: str | None = None) -> str:
    how = await engine.group.wait()
    said = await _threads.run(partial(describe_exit, how, engine.log_file, ready=ready, projector=projector))
    return without_keys(said)


def _note(placement: Placement | None) -> str:
    return "" if placement is None else placement.note
