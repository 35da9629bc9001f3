"""Waits for a process of an engine to be ready, and watches it until it fails."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from functools import partial
from typing import NoReturn

import trio

from gpustack.engines import parameters
from gpustack.engines.llama_cpp import PROJECTOR_FLAGS
from gpustack.nursery.limiter import threads
from gpustack.nursery.log_file import keep_trimmed
from gpustack.nursery.wake import first_of
from gpustack.worker.context import WorkerContext
from gpustack.worker.engine_exit import describe_exit
from gpustack.worker.engine_key import without_keys
from gpustack.worker.engine_process import EngineProcess
from gpustack.worker.launch import InstanceFailure
from gpustack.worker.probe import LOOPBACK

_LOG_LIMIT = 64 << 20
"""Bytes that an engine's log may have; what is older is cut off."""
_LOOK_AT_LOG_EVERY = 30.0
_threads = threads("engine logs", 2)


async def until_ready(
    engine: EngineProcess,
    context: WorkerContext,
    *,
    starting: Callable[[], None] = lambda: None,
    host: str = LOOPBACK,
) -> None:
    """Return when the engine answers its readiness probe; raises ``InstanceFailure`` if it ends or takes too long.

    ``starting`` is called for an adopted one that does not answer yet.
    """
    probe = engine.health.readiness
    if probe is None:
        return
    if engine.adopted:
        if await context.prober.answers(engine.port, probe, host):
            return
        starting()

    ready = partial(context.prober.until_ready, engine.port, probe, host)
    with trio.move_on_after(engine.start_left) as patience:
        if await first_of(ready, engine.group.wait, bounded_log(engine)) == 1:
            raise InstanceFailure(await _exit_sentence(engine, ready=False))
    if patience.cancelled_caught:
        what = probe.path or f"on port {engine.port}"
        raise InstanceFailure(
            f"The engine did not answer {what} within {engine.health.start_deadline:g} s of its start; "
            "see its log"
        )
    if engine.health.warm_up is not None:  # with a deadline of its own
        warm_up = partial(context.prober.warm_up, engine.port, engine.health.warm_up, host)
        if await first_of(warm_up, engine.group.wait, bounded_log(engine)) == 1:
            raise InstanceFailure(await _exit_sentence(engine, ready=False))


async def watch_engine(engine: EngineProcess, context: WorkerContext) -> NoReturn:
    """Raises ``InstanceFailure`` when the engine ends, or fails its liveness probe several times in a row."""
    liveness = engine.health.liveness
    if liveness is None:
        await first_of(engine.group.wait, bounded_log(engine))
        raise InstanceFailure(await _exit_sentence(engine, ready=True))
    hung = partial(context.prober.until_dead, engine.port, liveness)
    if await first_of(engine.group.wait, hung, bounded_log(engine)) == 0:
        raise InstanceFailure(await _exit_sentence(engine, ready=True))
    silent = liveness.period * liveness.failures
    raise InstanceFailure(
        f"The engine ran, but did not answer {liveness.path} for {silent:g} s and more, so it was ended"
    )


def bounded_log(engine: EngineProcess) -> Callable[[], Awaitable[object]]:
    """Keeps an engine's log within its bound, for ever: to run beside a wait for its end."""
    return partial(keep_trimmed, engine.log_file, limit=_LOG_LIMIT, period=_LOOK_AT_LOG_EVERY)


async def _exit_sentence(engine: EngineProcess, *, ready: bool) -> str:
    projector = None if ready else parameters.value_of(engine.argv, *PROJECTOR_FLAGS)
    how = await engine.group.wait()
    sentence = await _threads.run(
        partial(describe_exit, how, engine.log_file, ready=ready, projector=projector)
    )
    return without_keys(sentence)
