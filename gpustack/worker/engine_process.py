"""An engine as a process: started, or adopted from a former daemon; ended, or left for the next one."""

from __future__ import annotations

import hashlib
import logging
import os
from collections.abc import Mapping
from contextlib import ExitStack
from functools import partial
from pathlib import Path

import attrs
import trio

from gpustack.domain.document import decode, encode
from gpustack.domain.instance import ModelInstance, Placement
from gpustack.engines.engine import HealthPolicy, LaunchSpec
from gpustack.errors import Invalid, Unavailable
from gpustack.nursery.adopt import adopt, end_remains
from gpustack.nursery.group import ProcessGroup
from gpustack.nursery.limiter import threads
from gpustack.nursery.log_file import LogFile
from gpustack.nursery.process import spawn_group
from gpustack.nursery.state import GroupState, forget_state, read_state, read_states
from gpustack.worker import session_folder
from gpustack.worker.context import WorkerContext

log = logging.getLogger(__name__)

_FORGET_WITHIN = 10.0
_LEAST_START_LEFT = 30.0
"""Seconds that an adopted engine gets to become ready even if, by the clock, its time is over: clocks jump."""
_threads = threads("engine states", 2)


@attrs.frozen(kw_only=True)
class EngineProcess:
    """The process of one instance. Whoever holds it calls ``release`` in the end."""

    group: ProcessGroup
    port: int
    argv: tuple[str, ...] = ()
    """Empty for one that was adopted."""
    health: HealthPolicy
    """Stands in the state file, so that adopting asks nothing of model or machine."""
    adopted: bool
    log_file: Path
    start_left: float
    """Seconds it still has to become ready."""
    secrets: Mapping[str, str] = attrs.field(repr=False)
    _state_file: Path
    _grace: float

    async def release(self, *, end: bool) -> None:
        """End it with all that it started, or leave it running for the next daemon. Not cancellable, but bounded."""
        if not end:
            log.info("Leaving an engine running: pid=%d port=%d", self.group.pid, self.port)
            self.group.leave()
        elif await self.group.end(self._grace) is not None:
            await _forget(self._state_file)


async def start_engine(
    launch: LaunchSpec, instance: ModelInstance, port: int, context: WorkerContext, secrets: Mapping[str, str]
) -> EngineProcess:
    """Start the process; its state file is written before it runs. Cancelled midway, nothing is left.

    Raises ``Unavailable`` with a sentence when it cannot be started.
    """
    state_file, log_file = context.state_file(instance.id), context.log_file(instance.id)
    try:
        await _threads.run(partial(context.state_dir.mkdir, parents=True, exist_ok=True, mode=0o700))
        await _threads.run(partial(session_folder.fill, session_folder.of(state_file), launch))
        group = await spawn_group(
            launch.argv,
            env={**inherited_environment(os.environ), **launch.env},
            log=LogFile(log_file),
            cwd=session_folder.of(state_file) if launch.in_session else None,
            state_file=state_file,
            port=port,
            generation=instance.generation,
            meta={
                "instance": instance.name,
                "place": placement_digest(instance.placement),
                "terms": encode(launch.health).decode(),
            },
            secrets=secrets,
            now=context.now,
        )
    except OSError as error:
        await _remove_session(state_file)
        where = f": {error.filename}" if error.filename else ""
        advice = f". {launch.install}" if launch.install and isinstance(error, FileNotFoundError) else ""
        raise Unavailable(
            f"The engine cannot be started: {error.strerror or error}{where}{advice}"
        ) from error
    return EngineProcess(
        group=group,
        port=port,
        argv=launch.argv,
        health=launch.health,
        adopted=False,
        log_file=log_file,
        start_left=launch.health.start_deadline,
        secrets=secrets,
        state_file=state_file,
        grace=_grace(launch.health, context),
    )


async def adopt_engine(
    instance: ModelInstance, context: WorkerContext, leases: ExitStack
) -> EngineProcess | None:
    """The instance's engine that a former daemon left, its port kept in ``leases``; ``None`` if there is none.

    One that was started for another generation or placement is ended, and so is what a dead one left behind. Raises
    ``Unavailable`` when that cannot be ended.
    """
    state = await engine_on_record(instance.id, context)
    if state is None:
        return None
    health = _health_of(state)
    is_same = state.generation == instance.generation
    is_same = is_same and state.meta.get("place") == placement_digest(instance.placement)
    if health is None or state.port is None or not is_same:
        await end_former_engine(state, context)
        return None
    leases.enter_context(context.ports.keep(state.port, instance.name))
    group = adopt(state)
    if group is None:
        leases.close()
        await end_former_engine(state, context)
        return None
    log.info("Adopted a running engine: instance=%s pid=%d port=%d", instance.name, group.pid, state.port)
    age = (context.now() - state.started_at).total_seconds()
    return EngineProcess(
        group=group,
        port=state.port,
        health=health,
        adopted=True,
        log_file=context.log_file(instance.id),
        start_left=max(min(_LEAST_START_LEFT, health.start_deadline), health.start_deadline - age),
        secrets=state.secrets,
        state_file=context.state_file(instance.id),
        grace=_grace(health, context),
    )


async def end_former_engine(state: GroupState, context: WorkerContext) -> None:
    """End what a former daemon started, and remove its state file. Not cancellable, but bounded.

    Raises ``Unavailable`` when it is still there after having been killed.
    """
    grace = _grace(_health_of(state), context)
    group = adopt(state)
    if group is None:
        ended = await end_remains(state, grace)
    else:
        ended = await group.end(grace) is not None
    if not ended:
        raise Unavailable(
            f"A former engine (process {state.pid}) cannot be ended: it hangs in the kernel and may hold memory"
        )
    if state.path is not None:
        await _forget(state.path)


async def engines_on_record(context: WorkerContext) -> dict[int, GroupState]:
    """What the state files say, by instance id; a file that cannot be read is named in the log."""
    found: dict[int, GroupState] = {}
    for state in await _threads.run(read_states, context.state_dir):
        if not isinstance(state, GroupState):
            log.warning(
                "Cannot read the record of an engine: file=%s reason=%s", state.path.name, state.reason
            )
        elif state.path is not None and (number := state.path.stem.removeprefix("instance-")).isdigit():
            found[int(number)] = state
    return found


async def engine_on_record(instance_id: int, context: WorkerContext) -> GroupState | None:
    """What the state file of one instance says; ``None`` where there is none that can be read."""
    state = await _threads.run(read_state, context.state_file(instance_id))
    return state if isinstance(state, GroupState) else None


def placement_digest(placement: Placement | None) -> str:
    """Differs when the instance was placed differently: then its engine runs on the wrong devices."""
    if placement is None:
        return ""
    where = (placement.gpu_indexes, placement.claim, placement.subordinates)
    # An engine that was started before claims had slots is the same engine.
    parts = (encode(part).replace(b',"slots":null', b"") for part in where)
    return hashlib.sha256(b"\n".join(parts)).hexdigest()


def _health_of(state: GroupState) -> HealthPolicy | None:
    try:
        return decode(state.meta.get("terms", "").encode(), HealthPolicy)
    except Invalid:
        return None


def _grace(health: HealthPolicy | None, context: WorkerContext) -> float:
    """Seconds the engine gets to end by itself: the operator's, or less where the engine says that less will do."""
    return context.stop_grace if health is None else min(health.stop_grace, context.stop_grace)


async def _remove_session(state_file: Path) -> None:
    with trio.CancelScope(shield=True, deadline=trio.current_time() + _FORGET_WITHIN):
        await _threads.run(session_folder.remove, session_folder.of(state_file))


async def _forget(state_file: Path) -> None:
    with trio.CancelScope(shield=True, deadline=trio.current_time() + _FORGET_WITHIN):
        await _threads.run(session_folder.remove, session_folder.of(state_file))
        await _threads.run(forget_state, state_file)


_INHERITED = frozenset(
    {
        "HOME",
        "LANG",
        "LD_LIBRARY_PATH",
        "LOGNAME",
        "PATH",
        "PYTHONPATH",
        "TMPDIR",
        "TZ",
        "USER",
        "VIRTUAL_ENV",
    }
)
_INHERITED_PREFIXES = (
    "AMD_",
    "ASCEND",
    "CUDA",
    "GGML_",
    "GLOO_",
    "GOMP_",
    "HF_",
    "HIP",
    "HSA",
    "KMP_",
    "LC_",
    "LLAMA_",
    "MKL_",
    "MLU_",
    "MUSA_",
    "NCCL_",
    "NVIDIA",
    "OMP_",
    "ONEAPI_",
    "OPENBLAS_",
    "PYTORCH_",
    "ROCM",
    "ROCR_",
    "SSL_",
    "SYCL_",
    "TORCH_",
    "VLLM",
    "XDG_CACHE",
    "ZE_",
)
_SECRET = ("TOKEN", "SECRET", "PASSW", "API_KEY", "CREDENTIAL")


def inherited_environment(environment: Mapping[str, str]) -> dict[str, str]:
    """The part of the daemon's environment that an engine gets: paths and drivers, never the daemon's secrets.

    What else it needs is in its deployment's ``env``.
    """
    return {
        name: value
        for name, value in environment.items()
        if (name in _INHERITED or name.startswith(_INHERITED_PREFIXES))
        and not any(word in name for word in _SECRET)
    }
