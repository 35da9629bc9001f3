"""An engine as a process: started, or adopted from a former daemon; ended, or left for the next one."""

from __future__ import annotations

import hashlib
import logging
import os
from collections.abc import Mapping
from contextlib import ExitStack
from pathlib import Path

import attrs
import trio

from gpustack.domain.document import decode, encode
from gpustack.domain.instance import ModelInstance, Placement
from gpustack.engines.engine import LaunchSpec, Probe
from gpustack.errors import Invalid, Unavailable
from gpustack.nursery.adopt import adopt, end_remains
from gpustack.nursery.group import ProcessGroup
from gpustack.nursery.limiter import threads
from gpustack.nursery.log_file import LogFile
from gpustack.nursery.process import spawn_group
from gpustack.nursery.state import GroupState, forget_state, read_state, read_states
from gpustack.worker.context import WorkerContext
from gpustack.worker.environment import inherited_environment

log = logging.getLogger(__name__)

_FORGET_WITHIN = 10.0
_START_LEFT = 30.0
"""Seconds an adopted engine is given to become ready even if, by the clock, its time is over: clocks jump."""
_threads = threads("engine states", 2)


@attrs.frozen(kw_only=True)
class HealthPolicy:
    """How an engine is judged. Written down with it, so that adopting asks nothing of model or machine."""

    readiness: Probe
    liveness: Probe
    start_deadline: float
    stop_grace: float

    @classmethod
    def of(cls, launch: LaunchSpec) -> HealthPolicy:
        return cls(
            readiness=launch.readiness,
            liveness=launch.liveness,
            start_deadline=launch.start_deadline,
            stop_grace=launch.stop_grace,
        )


@attrs.frozen(kw_only=True)
class EngineProcess:
    """The process of one instance. Whoever holds it calls ``let_go`` in the end."""

    group: ProcessGroup
    port: int
    terms: HealthPolicy
    adopted: bool
    log_file: Path
    start_left: float
    """Seconds it still has to become ready."""
    secrets: Mapping[str, str] = attrs.field(repr=False)
    _state_file: Path
    _grace: float

    async def let_go(self, *, end: bool) -> None:
        """End it with all it started, or leave it running for the next daemon. Not cancellable, but bounded."""
        if not end:
            log.info("Leaving an engine running: pid=%d port=%d", self.group.pid, self.port)
            self.group.leave()
        elif await self.group.end(self._grace) is not None:
            await _forget(self._state_file)


async def start_engine(
    launch: LaunchSpec, instance: ModelInstance, port: int, world: WorkerContext, secrets: Mapping[str, str]
) -> EngineProcess:
    """Start the process; it is on record before it begins. Cancelled midway, it leaves nothing behind.

    Raises ``Unavailable`` with a sentence when it cannot be started.
    """
    state_file, log_file = world.state_file(instance.id), world.log_file(instance.id)
    terms = HealthPolicy.of(launch)
    try:
        await _threads.run(_make_private, world.state_dir)
        group = await spawn_group(
            launch.argv,
            env={**inherited_environment(os.environ), **launch.env},
            cwd=None if launch.cwd is None else Path(launch.cwd),
            log=LogFile(log_file),
            state_file=state_file,
            port=port,
            generation=instance.generation,
            meta={
                "instance": instance.name,
                "place": placement_digest(instance.placement),
                "terms": encode(terms).decode(),
            },
            secrets=secrets,
            now=world.now,
        )
    except OSError as error:
        where = f": {error.filename}" if error.filename else ""
        raise Unavailable(f"The engine cannot be started: {error.strerror or error}{where}") from error
    return EngineProcess(
        group=group,
        port=port,
        terms=terms,
        adopted=False,
        log_file=log_file,
        start_left=terms.start_deadline,
        secrets=secrets,
        state_file=state_file,
        grace=min(terms.stop_grace, world.stop_grace),
    )


async def adopt_engine(
    instance: ModelInstance, world: WorkerContext, ports: ExitStack
) -> EngineProcess | None:
    """The instance's engine that a former daemon left, its port kept in ``ports``; ``None`` if there is none.

    One that was started for another generation or place is ended, and so is what a dead one left behind. Raises
    ``Unavailable`` when that cannot be ended.
    """
    state_file = world.state_file(instance.id)
    state = await _threads.run(read_state, state_file)
    if not isinstance(state, GroupState):
        return None
    terms = _terms_of(state)
    fits = state.generation == instance.generation and state.meta.get("place") == placement_digest(
        instance.placement
    )
    if terms is None or state.port is None or not fits:
        await end_former_engine(state, world)
        return None
    ports.enter_context(world.ports.keep(state.port, instance.name))
    group = adopt(state)
    if group is None:
        ports.close()
        await end_former_engine(state, world)
        return None
    log.info("Adopted a running engine: instance=%s pid=%d port=%d", instance.name, group.pid, state.port)
    return EngineProcess(
        group=group,
        port=state.port,
        terms=terms,
        adopted=True,
        log_file=world.log_file(instance.id),
        start_left=_start_left(terms, (world.now() - state.started_at).total_seconds()),
        secrets=state.secrets,
        state_file=state_file,
        grace=min(terms.stop_grace, world.stop_grace),
    )


async def end_former_engine(state: GroupState, world: WorkerContext) -> None:
    """End what a former daemon started, and forget it. Not cancellable, but bounded.

    Raises ``Unavailable`` when it withstands even being killed.
    """
    terms = _terms_of(state)
    grace = world.stop_grace if terms is None else min(terms.stop_grace, world.stop_grace)
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


async def engines_on_record(world: WorkerContext) -> dict[int, GroupState]:
    """What former daemons wrote down, by instance id; a file that cannot be read is named in the log."""
    found: dict[int, GroupState] = {}
    for state in await _threads.run(read_states, world.state_dir):
        if not isinstance(state, GroupState):
            log.warning(
                "Cannot read the record of an engine: file=%s reason=%s", state.path.name, state.reason
            )
        elif state.path is not None and (number := state.path.stem.removeprefix("instance-")).isdigit():
            found[int(number)] = state
    return found


async def engine_on_record(instance_id: int, world: WorkerContext) -> GroupState | None:
    """What is written down about one instance."""
    state = await _threads.run(read_state, world.state_file(instance_id))
    return state if isinstance(state, GroupState) else None


def placement_digest(placement: Placement | None) -> str:
    """Differs when the instance was placed differently: its engine then runs on the wrong devices."""
    if placement is None:
        return ""
    where = (placement.gpu_indexes, placement.claim, placement.subordinates)
    # An engine that was started before claims had slots is the same engine.
    parts = (encode(part).replace(b',"slots":null', b"") for part in where)
    return hashlib.sha256(b"\n".join(parts)).hexdigest()


def _terms_of(state: GroupState) -> HealthPolicy | None:
    try:
        return decode(state.meta.get("terms", "").encode(), HealthPolicy)
    except Invalid:
        return None


def _start_left(terms: HealthPolicy, age: float) -> float:
    return max(min(_START_LEFT, terms.start_deadline), terms.start_deadline - age)


def _make_private(folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)


async def _forget(state_file: Path) -> None:
    with trio.CancelScope(shield=True, deadline=trio.current_time() + _FORGET_WITHIN):
        await _threads.run(forget_state, state_file)
