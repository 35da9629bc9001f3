"""The life of an instance: files → port → command → process → readiness → serve and probe → stop."""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable
from contextlib import ExitStack
from functools import partial
from typing import NoReturn

import attrs
import trio

from gpustack.artifacts.repository import FileExtras
from gpustack.domain.facts import FileFormat, ModelFacts
from gpustack.domain.instance import ModelInstance
from gpustack.domain.lifecycle import InstanceState
from gpustack.domain.model import Model
from gpustack.engines import parameters
from gpustack.engines.engine import Engine, LaunchContext, LaunchSpec
from gpustack.engines.llama_cpp import PROJECTOR_FLAGS, wanted_projector
from gpustack.engines.registry import engine_for
from gpustack.errors import GpustackError, Invalid, Unavailable
from gpustack.nursery.limiter import threads
from gpustack.nursery.log_file import keep_trimmed
from gpustack.nursery.wake import first_of
from gpustack.worker import session_folder
from gpustack.worker.context import WorkerContext
from gpustack.worker.engine_exit import describe_exit
from gpustack.worker.engine_key import SECRET, make_engine_key, without_keys
from gpustack.worker.engine_process import EngineProcess, adopt_engine, start_engine
from gpustack.worker.report import InstanceReporter

log = logging.getLogger(__name__)

_LOG_LIMIT = 64 << 20
"""Bytes that an engine's log may have; what is older is cut off."""
_LOOK_AT_LOG_EVERY = 30.0
_LOOK_FOR_PORT_EVERY = 5.0
_threads = threads("engine logs", 2)


class InstanceFailure(Exception):
    """An instance ended without being asked to. ``str()`` is the sentence for its record."""


@attrs.frozen
class _LaunchInputs:
    """What a start needs besides a port."""

    engine: Engine
    model_path: str
    mmproj_path: str | None


async def run_instance(
    instance: ModelInstance,
    model: Model | None,
    context: WorkerContext,
    reporter: InstanceReporter,
    unwanted: trio.Event,
    on_ready: Callable[[], None],
) -> NoReturn:
    """Adopt or start the engine of ``instance``, report each state, and watch it until it fails.

    Never returns: raises ``InstanceFailure``, or is cancelled, which is safe at any line. The engine is ended when it
    failed, when ``unwanted`` was set before the cancellation, and when the daemon is being stopped. In any other case
    (the daemon crashes, or hands over) it keeps running, for the next daemon to adopt.

    ``model`` is the deployment as of the instance's generation; without it a running engine is adopted, but none is
    started. ``on_ready`` is called when the engine answers for the first time.
    """
    try:
        with ExitStack() as leases:
            engine = await adopt_engine(instance, context, leases)
            if engine is None:
                engine = await _start(instance, model, context, reporter, leases)
            leases.enter_context(context.keys.of(engine.port, engine.secrets))
            failed = False
            try:
                await _until_ready(engine, context, reporter)
                on_ready()
                reporter.report(
                    InstanceState.RUNNING,
                    "" if instance.placement is None else instance.placement.note,
                    pid=engine.group.pid,
                    port=engine.port,
                    ports=(engine.port,),
                )
                await _watch_engine(engine, context)
            except (InstanceFailure, GpustackError):
                failed = True
                raise
            finally:
                if context.shutdown.ends_engines and not (failed or unwanted.is_set()):
                    # Before the engine ends, so that nobody is sent to it any more.
                    reporter.report(
                        InstanceState.INITIALIZING,
                        "Its worker was stopped; the engine starts again with it, or elsewhere",
                    )
                await engine.release(end=failed or unwanted.is_set() or context.shutdown.ends_engines)
    except GpustackError as error:
        raise InstanceFailure(str(error)) from error
    raise AssertionError("it ends by failing, or by being cancelled")


async def _start(
    instance: ModelInstance,
    model: Model | None,
    context: WorkerContext,
    reporter: InstanceReporter,
    leases: ExitStack,
) -> EngineProcess:
    """Files → port → command → process. The port stays leased until ``leases`` is closed."""
    reporter.report(InstanceState.INITIALIZING)
    await context.orphans_ended.wait()
    if model is None:
        raise InstanceFailure(
            f"The deployment was changed since this replica (generation {instance.generation}) was made; "
            "it is about to be replaced"
        )
    inputs = await _fetch_files(instance, model, context, reporter)
    port = await _lease_port(instance, context, reporter, leases)
    key = make_engine_key(context.rng)
    launch = await _describe_launch(instance, model, inputs, port, key, context)
    reporter.report(InstanceState.STARTING, port=port, ports=(port,), resolved_path=inputs.model_path)
    engine = await start_engine(launch, instance, port, context, {SECRET: key})
    log.log(
        logging.DEBUG if reporter.retrying else logging.INFO,
        "Started an engine: instance=%s pid=%d port=%d",
        instance.name,
        engine.group.pid,
        port,
    )
    return engine


async def _fetch_files(
    instance: ModelInstance, model: Model, context: WorkerContext, reporter: InstanceReporter
) -> _LaunchInputs:
    """The engine to run and its files, fetched if they are missing."""
    try:
        engine = engine_for(model)
    except Invalid:
        if model.backend:
            raise
        engine = None  # only its files tell
    if engine is not None and not engine.fetches(model):
        return _LaunchInputs(engine, "", None)

    def progress(percent: float) -> None:
        reporter.report(InstanceState.DOWNLOADING, download_progress=percent)

    projector = wanted_projector(model) or None
    extras = _extras(model)
    files = await context.files.ensure(instance.source, progress=progress, projector=projector, extras=extras)
    path = files.main_path
    if engine is None:
        is_gguf = path.lower().endswith(".gguf")
        facts = ModelFacts(format=FileFormat.GGUF if is_gguf else FileFormat.SAFETENSORS)
        engine = engine_for(model, facts)
    return _LaunchInputs(engine, path, files.mmproj_path)


def _extras(model: Model) -> FileExtras:
    """What a deployment's parameters ask of a repository: code where it may run, weights in the form they name."""
    given = model.backend_parameters
    form = parameters.value_of(given, "--load-format", "--config-format")
    return FileExtras(
        code=parameters.has(given, "--trust-remote-code") or form == "pt", consolidated=form == "mistral"
    )


async def _lease_port(
    instance: ModelInstance, context: WorkerContext, reporter: InstanceReporter, leases: ExitStack
) -> int:
    """A port; while none is free, the instance reports so and waits for one to be given back."""
    while True:
        try:
            return leases.enter_context(context.ports.lease(instance.name))
        except Unavailable as error:
            reporter.report(InstanceState.INITIALIZING, f"Waiting for a port: {error}")
            await context.ports.freed(_LOOK_FOR_PORT_EVERY)


async def _describe_launch(
    instance: ModelInstance,
    model: Model,
    inputs: _LaunchInputs,
    port: int,
    key: str,
    context: WorkerContext,
) -> LaunchSpec:
    engine, placement = inputs.engine, instance.placement
    if placement is None:
        raise InstanceFailure("The instance was assigned without a place; this is a fault of the server")
    faults = engine.faults(model)
    if faults:
        raise InstanceFailure("; ".join(faults))
    build = next((b for b in await context.builds() if b.engine == engine.name), None)
    if build is None:
        raise InstanceFailure(f"This worker has no {engine.name} engine; run 'gpustack doctor' there")
    return engine.launch(
        LaunchContext(
            model=model,
            instance=instance,
            placement=placement,
            model_path=inputs.model_path,
            mmproj_path=inputs.mmproj_path,
            port=port,
            api_key=key,
            build=build,
            data_dir=str(context.data_dir),
            session_dir=str(session_folder.of(context.state_file(instance.id))),
            device_type=context.device_type(placement),
            cpu_count=context.cpu_count,
        )
    )


async def _until_ready(engine: EngineProcess, context: WorkerContext, reporter: InstanceReporter) -> None:
    """Return when the engine answers its readiness probe; raises ``InstanceFailure`` if it ends or takes too long."""
    port, health = engine.port, engine.health
    probe = health.readiness
    if probe is None:
        return
    if engine.adopted:
        if await context.prober.answers(port, probe):
            return
        reporter.report(InstanceState.STARTING, pid=engine.group.pid, port=port, ports=(port,))
    ready = partial(context.prober.until_ready, port, probe)
    with trio.move_on_after(engine.start_left) as patience:
        if await first_of(ready, engine.group.wait, _bounded_log(engine)) == 1:
            raise InstanceFailure(await _exit_sentence(engine, ready=False))
    if patience.cancelled_caught:
        raise InstanceFailure(
            f"The engine did not answer {probe.path or 'on its port'} within {health.start_deadline:g} s of its start; "
            "see its log"
        )


async def _watch_engine(engine: EngineProcess, context: WorkerContext) -> NoReturn:
    """Raises ``InstanceFailure`` when the engine ends, or fails its liveness probe several times in a row."""
    liveness = engine.health.liveness
    hung = (
        trio.sleep_forever if liveness is None else partial(context.prober.until_dead, engine.port, liveness)
    )
    ended = await first_of(engine.group.wait, hung, _bounded_log(engine)) == 0
    if ended or liveness is None:
        raise InstanceFailure(await _exit_sentence(engine, ready=True))
    silent = liveness.period * liveness.failures
    raise InstanceFailure(
        f"The engine ran, but did not answer {liveness.path} for {silent:g} s and more, so it was ended"
    )


def _bounded_log(engine: EngineProcess) -> Callable[[], Awaitable[object]]:
    return partial(keep_trimmed, engine.log_file, limit=_LOG_LIMIT, period=_LOOK_AT_LOG_EVERY)


async def _exit_sentence(engine: EngineProcess, *, ready: bool) -> str:
    projector = None if ready else parameters.value_of(engine.argv, *PROJECTOR_FLAGS)
    how = await engine.group.wait()
    sentence = await _threads.run(
        partial(describe_exit, how, engine.log_file, ready=ready, projector=projector)
    )
    return without_keys(sentence)
