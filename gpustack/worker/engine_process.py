"""An engine as a process: started, or adopted from a former daemon; ended, or left for the next one."""

from __future__ import annotations

import hashlib
import logging
import os
import re
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from functools import partial
from pathlib import Path

import attrs
import trio

from gpustack.domain.document import decode, encode
from gpustack.domain.instance import ModelInstance, Placement, Subordinate
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
from gpustack.worker.launch_record import launch_record, write_record

log = logging.getLogger(__name__)

_FORGET_WITHIN = 10.0
_REMAINS_GRACE = 1.0
_LEAST_START_LEFT = 30.0
"""Seconds that an adopted engine gets to become ready even if, by the clock, its time is over: clocks jump."""
_UNSET_LATER = re.compile(rb',"(?:slots|context|kv_cache|tensor_parallel)":null')
"""Fields that claims got later: an engine that was started before them is the same engine."""
_STATE_FILE = re.compile(r"instance-(?P<instance>\d{1,18})(?:-member-(?P<member>\d{1,9}))?", re.ASCII)
_threads = threads("engine states", 2)

SeatKey = tuple[int, int]
"""An instance's id, and the member of it: 0 is the main one."""


@attrs.frozen(kw_only=True)
class EngineSeat:
    """For whom a process runs: a member of an instance (0 is the main one), in one attempt of its gang."""

    instance: ModelInstance
    member: int = 0
    attempt: int = 0

    @property
    def holder(self) -> str:
        """Its name, of ports and in logs."""
        return holder_name(self.instance, self.member)

    @property
    def share(self) -> Subordinate:
        """What the placement gives this member; the instance has a place."""
        assert self.instance.placement is not None
        return self.instance.placement.share(self.member)


def holder_name(instance: ModelInstance, member: int = 0) -> str:
    """The name of an instance's member as the holder of ports."""
    return f"{instance.name} member {member}" if member else instance.name


@attrs.frozen(kw_only=True)
class EngineProcess:
    """The process of one member of an instance. Whoever holds it calls ``release`` in the end."""

    group: ProcessGroup
    attempt: int = 0
    """Of which attempt of its gang it is part."""
    ports: tuple[int, ...]
    """The main member's first is for HTTP."""
    argv: tuple[str, ...] = ()
    """Empty for one that was adopted."""
    health: HealthPolicy
    """Stands in the state file, so that adopting asks nothing of model or machine."""
    adopted: bool
    log_file: Path
    start_left: float
    """Seconds it still has to become ready."""
    secrets: Mapping[str, str] = attrs.field(repr=False)
    engine_name: str = ""
    """Empty for one that was adopted."""
    build: str = ""
    """The version that runs; empty where it is not known."""
    _state_file: Path
    _grace: float

    @property
    def port(self) -> int:
        """Where it serves HTTP, or the first port that it serves the others on; 0 for one that listens on none of
        ours."""
        return self.ports[0] if self.ports else 0

    async def release(self, *, end: bool, crippled: bool = False) -> None:
        """End it with all that it started, or leave it running for the next daemon. Not cancellable, but bounded.

        ``crippled``: a part of its gang has failed, so that it can finish no request, however long it is waited for.
        """
        if not end:
            log.info("Leaving an engine running: pid=%d ports=%s", self.group.pid, list(self.ports))
            self.group.leave()
            return
        # What a dead leader left, and a main member without its followers, can finish no request: clients would wait in
        # vain, and it holds memory that the next start needs.
        whole = self.group.alive and not crippled
        grace = self._grace if whole else min(self._grace, _REMAINS_GRACE)
        if await self.group.end(grace) is not None:
            await _forget(self._state_file)


async def start_engine(
    launch: LaunchSpec,
    seat: EngineSeat,
    ports: Sequence[int],
    context: WorkerContext,
    secrets: Mapping[str, str],
) -> EngineProcess:
    """Start the process; its state file is written before it runs. Cancelled midway, nothing is left.

    Raises ``Unavailable`` with a sentence when it cannot be started.
    """
    instance = seat.instance
    state_file = context.state_file(instance.id, seat.member)
    log_file = context.log_file(instance.id, seat.member)
    try:
        await _threads.run(partial(context.state_dir.mkdir, parents=True, exist_ok=True, mode=0o700))
        await _threads.run(partial(session_folder.fill, session_folder.of(state_file), launch))
        record = launch_record(launch, secrets, context.now())
        await _threads.run(partial(write_record, log_file, record))
        group = await spawn_group(
            launch.argv,
            env={**inherited_environment(os.environ), **launch.env},
            log=LogFile(log_file),
            cwd=session_folder.of(state_file) if launch.in_session else None,
            state_file=state_file,
            port=ports[0] if ports else None,
            generation=instance.generation,
            meta={
                "instance": instance.name,
                "place": placement_digest(instance.placement),
                "terms": encode(launch.health).decode(),
                "attempt": str(seat.attempt),
                "ports": ",".join(map(str, ports)),
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
        attempt=seat.attempt,
        ports=tuple(ports),
        argv=launch.argv,
        health=launch.health,
        adopted=False,
        log_file=log_file,
        start_left=launch.health.start_deadline,
        secrets=secrets,
        state_file=state_file,
        grace=_grace(launch.health, context),
    )


async def adopt_engine(seat: EngineSeat, context: WorkerContext, leases: ExitStack) -> EngineProcess | None:
    """The process of this seat that a former daemon left, its ports kept in ``leases``; ``None`` if there is none.

    One that was started for another generation or placement is ended, and so is what a dead one left behind. A follower
    must be of the seat's attempt as well; the main member's attempt is the one of its process. Raises ``Unavailable``
    when that cannot be ended.
    """
    state = await engine_on_record(seat.instance.id, context, seat.member)
    if state is None:
        return None
    health = _health_of(state)
    if health is None or not _is_for(state, seat):
        await end_former_engine(state, context)
        _expect_no_more(seat, context)
        return None
    ports = ports_of(state)
    for number, port in enumerate(ports):
        inner = bool(seat.member or number)
        owner = context.port_owner(port, seat.member)
        leases.enter_context(owner.keep(port, seat.holder, inner=inner))
    group = adopt(state)
    if group is None:
        leases.close()
        await end_former_engine(state, context)
        _expect_no_more(seat, context)
        return None
    log.info("Adopted a running engine: instance=%s pid=%d ports=%s", seat.holder, group.pid, list(ports))
    age = (context.now() - state.started_at).total_seconds()
    return EngineProcess(
        group=group,
        attempt=attempt_of(state),
        ports=ports,
        health=health,
        adopted=True,
        log_file=context.log_file(seat.instance.id, seat.member),
        start_left=max(min(_LEAST_START_LEFT, health.start_deadline), health.start_deadline - age),
        secrets=state.secrets,
        state_file=context.state_file(seat.instance.id, seat.member),
        grace=_grace(health, context),
    )


def _expect_no_more(seat: EngineSeat, context: WorkerContext) -> None:
    """End the reservation of ports that nobody comes to adopt."""
    for ports in (context.ports, context.rpc_ports):
        ports.expect_no_more(seat.holder)


def _is_for(state: GroupState, seat: EngineSeat) -> bool:
    """Whether a process was started for this very seat."""
    is_same = state.generation == seat.instance.generation
    is_same = is_same and state.meta.get("place") == placement_digest(seat.instance.placement)
    if seat.member:
        return is_same and attempt_of(state) == seat.attempt
    return is_same and state.port is not None


def attempt_of(state: GroupState) -> int:
    """In which attempt of its gang a process of a former daemon was started; 0 for one that ran alone."""
    text = state.meta.get("attempt", "")
    return int(text) if text.isdigit() else 0


def ports_of(state: GroupState) -> tuple[int, ...]:
    """The ports that a process of a former daemon was given."""
    more = [int(text) for text in state.meta.get("ports", "").split(",") if text.isdigit()]
    return tuple(more) or (() if state.port is None else (state.port,))


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


async def engines_on_record(context: WorkerContext) -> dict[SeatKey, GroupState]:
    """What the state files say, by instance id and member; a file that cannot be read is named in the log."""
    found: dict[tuple[int, int], GroupState] = {}
    for state in await _threads.run(read_states, context.state_dir):
        if not isinstance(state, GroupState):
            log.warning(
                "Cannot read the record of an engine: file=%s reason=%s", state.path.name, state.reason
            )
        elif (seat := seat_on_record(state)) is not None:
            found[seat] = state
    return found


def seat_on_record(state: GroupState) -> SeatKey | None:
    """For whom a process was started, as the name of its state file tells; ``None`` for what is no engine."""
    named = None if state.path is None else _STATE_FILE.fullmatch(state.path.stem)
    return None if named is None else (int(named["instance"]), int(named["member"] or 0))


async def engine_on_record(instance_id: int, context: WorkerContext, member: int = 0) -> GroupState | None:
    """What the state file of one member says; ``None`` where there is none that can be read."""
    state = await _threads.run(read_state, context.state_file(instance_id, member))
    return state if isinstance(state, GroupState) else None


def placement_digest(placement: Placement | None) -> str:
    """Differs when the instance was placed differently: then its engine runs on the wrong devices."""
    if placement is None:
        return ""
    where = (placement.gpu_indexes, placement.claim, placement.subordinates)
    parts = (_UNSET_LATER.sub(b"", encode(part)) for part in where)
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
        folder = session_folder.of(state_file)
        try:
            await _threads.run(session_folder.remove, folder)
        except OSError as error:
            # What is left of the engine may still write there; the next start removes it.
            log.warning("Files of an engine cannot be removed: folder=%s reason=%s", folder, error.strerror)


async def _forget(state_file: Path) -> None:
    await _remove_session(state_file)
    with trio.CancelScope(shield=True, deadline=trio.current_time() + _FORGET_WITHIN):
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
