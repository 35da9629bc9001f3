"""The life of an instance's main member: files → ports → command → process → readiness → serve and probe → stop."""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable
from contextlib import ExitStack
from functools import partial
from typing import Any, NoReturn

import attrs
import trio

from gpustack.domain.instance import ModelInstance
from gpustack.domain.lifecycle import InstanceState
from gpustack.domain.model import Model
from gpustack.engines.engine import Gang, GangMember, GangPlan, PortPool, StartOrder
from gpustack.errors import GpustackError
from gpustack.nursery.limiter import threads
from gpustack.nursery.wake import AsyncValue, first_of
from gpustack.worker.adapters import RunningAdapters
from gpustack.worker.assignment_watcher import AssignmentSnapshot
from gpustack.worker.context import WorkerContext
from gpustack.worker.engine_key import SECRET, make_engine_key
from gpustack.worker.engine_process import EngineProcess, EngineSeat, adopt_engine, start_engine
from gpustack.worker.engine_watch import until_ready, watch_engine
from gpustack.worker.gang import Followers, GangRecord
from gpustack.worker.launch import (
    InstanceFailure,
    LaunchTerms,
    describe_launch,
    fetch_files,
    lease_ports,
    plan_of,
    with_build,
)
from gpustack.worker.leftovers import clear_leftovers
from gpustack.worker.memory_measuring import MemoryMeasuring
from gpustack.worker.report import InstanceReporter

log = logging.getLogger(__name__)

_FOLLOWERS_WITHIN = 1800.0
"""Seconds without progress of followers that prepare themselves: they may fetch the model's files first."""
_CULPRIT_WITHIN = 3.0
"""Seconds to wait for a follower's word when the main process ends: it often dies of a follower's death."""
_threads = threads("gangs", 1)


@attrs.frozen(kw_only=True)
class InstanceRun:
    """One run of an instance: what it is, and whom to tell."""

    instance: ModelInstance
    model: Model | None
    """The deployment as of the instance's generation; without it a running engine is adopted, but none is started."""
    next_attempt: Callable[[], int]
    """Counts a start of its gang: the number of the new attempt."""
    record: GangRecord
    assignments: AsyncValue[AssignmentSnapshot]
    """What the server wants of this worker by now."""
    reporter: InstanceReporter
    unwanted: trio.Event
    """Set before the run is cancelled because the instance is to end."""
    on_ready: Callable[[], None]
    """Called when the engine answers for the first time."""


async def run_instance(run: InstanceRun, context: WorkerContext) -> NoReturn:
    """Adopt or start the main engine of an instance, report each state, and watch it, and the followers of its gang,
    until one of them fails.

    Never returns: raises ``InstanceFailure``, or is cancelled, which is safe at any line. The engine is ended when it
    or a follower failed, when ``unwanted`` was set before the cancellation, and when the daemon is being stopped. In
    any other case (the daemon crashes, or hands over) it keeps running, for the next daemon to adopt.
    """
    try:
        with ExitStack() as leases:
            seat = EngineSeat(instance=run.instance)
            engine = await adopt_engine(seat, context, leases)
            if engine is None:
                engine = await _start(run, context, leases)
            leases.enter_context(context.keys.of(engine.port, engine.secrets))
            failed = False
            try:
                await _beside(_followers(run, engine.attempt), partial(_serve, run, engine, context))
            except (InstanceFailure, GpustackError) as failure:
                failed = True
                if engine.attempt:
                    # Before its remains are ended: nobody is to be sent to it, and its followers are to end too.
                    run.reporter.report(InstanceState.ERROR, str(failure))
                raise
            except Exception:
                # The followers end with what is reported of this; an engine without them is of no use.
                failed = bool(engine.attempt)
                raise
            finally:
                is_unwanted = failed or run.unwanted.is_set()
                if context.shutdown.ends_engines and not is_unwanted:
                    # Before the engine ends, so that nobody is sent to it any more.
                    run.reporter.report(
                        InstanceState.INITIALIZING,
                        "Its worker was stopped; the engine starts again with it, or elsewhere",
                    )
                ends = is_unwanted or context.shutdown.ends_engines
                await engine.release(end=ends, crippled=failed and bool(engine.attempt))
                if ends and engine.attempt:
                    await clear_leftovers(context.now().timestamp())
    except GpustackError as error:
        raise InstanceFailure(str(error)) from error
    raise AssertionError("it ends by failing, or by being cancelled")


async def _serve(run: InstanceRun, engine: EngineProcess, context: WorkerContext) -> None:
    """Report the engine running once it answers, and watch it."""
    placement = run.instance.placement
    where: dict[str, Any] = {"pid": engine.group.pid, "port": engine.port, "ports": engine.ports}
    if placement is not None and placement.subordinates:
        where |= {"attempt": engine.attempt, "address": await _threads.run(context.address)}

    def starting() -> None:
        # To followers a step back means that this attempt is over.
        if not engine.attempt:
            run.reporter.report(InstanceState.STARTING, **where)

    await until_ready(engine, context, starting=starting)
    note = "" if placement is None else placement.note

    def tell(names: tuple[str, ...], remark: str, outgrown: bool) -> None:
        message = "; ".join(text for text in (note, remark) if text)
        run.reporter.report(
            InstanceState.RUNNING, message, **where, lora_adapters=names, outgrown=outgrown or None
        )

    adapters = RunningAdapters(run.instance, engine.port, run.assignments, context, tell)
    names = await adapters.names()
    run.on_ready()
    run.reporter.report(InstanceState.RUNNING, note, **where, lora_adapters=names)
    measuring = MemoryMeasuring(engine, EngineSeat(instance=run.instance), context)
    await _watch(engine, context, adapters, measuring)


async def _watch(
    engine: EngineProcess, context: WorkerContext, adapters: RunningAdapters, measuring: MemoryMeasuring
) -> None:
    """Raises ``InstanceFailure`` when the engine fails; its adapters follow the deployment until then, and what it
    takes is measured."""
    failures: list[InstanceFailure | GpustackError] = []

    async def watch() -> None:
        try:
            await watch_engine(engine, context)
        except (InstanceFailure, GpustackError) as failure:
            failures.append(failure)

    await first_of(watch, adapters.keep, measuring.keep)
    raise failures[0]


async def _start(run: InstanceRun, context: WorkerContext, leases: ExitStack) -> EngineProcess:
    """Files → ports → followers → command → process. The ports stay leased until ``leases`` is closed."""
    instance, model, reporter = run.instance, run.model, run.reporter
    placement = instance.placement
    is_gang = placement is not None and bool(placement.subordinates)
    address = await _threads.run(context.address) if is_gang else ""
    attempt = run.next_attempt() if is_gang else 0
    started: dict[str, Any] = {"attempt": attempt, "address": address} if is_gang else {}
    reporter.report(InstanceState.INITIALIZING, **started)
    await context.orphans_ended.wait()
    if model is None:
        raise InstanceFailure(
            f"The deployment was changed since this replica (generation {instance.generation}) was made; "
            "it is about to be replaced"
        )

    def progress(percent: float) -> None:
        reporter.report(InstanceState.DOWNLOADING, download_progress=percent)

    def tell(sentence: str) -> None:
        reporter.report(InstanceState.INITIALIZING, sentence)

    seat = EngineSeat(instance=instance, attempt=attempt)
    inputs = await fetch_files(run.record.now or instance, model, context, progress)
    inputs = await with_build(inputs, seat, model, context, tell)
    plan = plan_of(inputs.engine, model, instance, context)
    count = 1 if plan is None else 1 + plan.main_ports
    ports = await lease_ports(count, PortPool.SERVICE, seat, context, leases, tell)
    gang, ray = None, None
    if plan is not None:
        main = GangMember(index=0, address=address, ports=ports, gpu_indexes=seat.share.gpu_indexes)
        gang = await _gather(run, attempt, plan, main, context, tell)
        if plan.delegated and context.ray is not None:
            ray = context.ray.environment()
    key = make_engine_key(context.rng)
    launch = await describe_launch(seat, model, inputs, LaunchTerms(ports, key, gang, ray), context)
    reporter.report(InstanceState.STARTING, port=ports[0], ports=ports, resolved_path=inputs.model_path)
    engine = await start_engine(launch, seat, ports, context, {SECRET: key})
    version = "" if inputs.build is None else inputs.build.version or ""
    engine = attrs.evolve(engine, engine_name=inputs.engine.name, build=version)
    log.log(
        logging.DEBUG if reporter.retrying else logging.INFO,
        "Started an engine: instance=%s pid=%d ports=%s",
        instance.name,
        engine.group.pid,
        list(ports),
    )
    return engine


async def _gather(
    run: InstanceRun,
    attempt: int,
    plan: GangPlan,
    main: GangMember,
    context: WorkerContext,
    tell: Callable[[str], None],
) -> Gang:
    """The whole gang, once its followers, and the Ray of this worker where it runs on that, are ready for its main
    process. Raises ``InstanceFailure`` if a follower fails, or for long no progress is seen."""
    followers = _followers(run, attempt, plan)
    assert followers is not None  # it has a plan
    prepared: list[tuple[GangMember, ...]] = []

    patience = trio.CancelScope(deadline=trio.current_time() + _FOLLOWERS_WITHIN)

    def heard(sentence: str) -> None:
        patience.deadline = trio.current_time() + _FOLLOWERS_WITHIN
        tell(sentence)

    async def prepare() -> None:
        members = await followers.until_prepared(heard)
        if plan.delegated and context.ray is not None:
            await context.ray.until_up(tell)
        prepared.append(members)

    with patience:
        await _beside(followers, prepare)
    if not prepared:
        raise InstanceFailure(f"Nothing was heard of its other members for {_FOLLOWERS_WITHIN:g} s")
    return Gang(attempt=attempt, members=(main, *prepared[0]))


def _followers(run: InstanceRun, attempt: int, plan: GangPlan | None = None) -> Followers | None:
    """The followers of the instance's gang; ``None`` for an engine that runs alone."""
    placement = run.instance.placement
    if placement is None or not placement.subordinates:
        return None
    order = StartOrder.TOGETHER if plan is None else plan.order
    return Followers(run.record, attempt, len(placement.subordinates), order)


async def _beside(followers: Followers | None, work: Callable[[], Awaitable[None]]) -> None:
    """Do the work of the main member; raises ``InstanceFailure`` when that fails, or a follower meanwhile."""
    if followers is None:
        await work()
        return
    failures: list[InstanceFailure | GpustackError] = []
    culprits: list[str] = []

    async def do_work() -> None:
        try:
            await work()
        except (InstanceFailure, GpustackError) as failure:
            failures.append(failure)

    async def listen() -> None:
        culprits.append(await followers.until_failed())

    await first_of(do_work, listen)
    if failures and not culprits:
        with trio.move_on_after(_CULPRIT_WITHIN):
            await listen()
    if culprits:
        after = f". After that: {failures[0]}" if failures else ""
        raise InstanceFailure(f"{culprits[0]}{after}")
    if failures:
        raise failures[0]
