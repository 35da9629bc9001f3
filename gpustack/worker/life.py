"""The life of an instance: files → port → command → process → readiness → serve and probe → stop."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Mapping
from contextlib import AsyncExitStack
from datetime import datetime
from pathlib import Path

import attrs
import trio

from gpustack.domain.instance import ModelInstance, Placement
from gpustack.domain.lifecycle import InstanceState
from gpustack.domain.model import Model
from gpustack.domain.report import InstanceReport
from gpustack.domain.worker import EngineBuild
from gpustack.engines.engine import Engine, Launch, LaunchContext
from gpustack.engines.registry import engine_for
from gpustack.errors import GpustackError
from gpustack.nursery.adopt import adopt, end_remains
from gpustack.nursery.group import Exit, Group
from gpustack.nursery.output import Output, trim
from gpustack.nursery.process import spawn_group
from gpustack.nursery.state import GroupState, forget_state, read_state
from gpustack.worker.file import Files
from gpustack.worker.intent import Intent
from gpustack.worker.ports import PortLeases
from gpustack.worker.probe import Prober, first_of
from gpustack.worker.reports import Reports

log = logging.getLogger(__name__)

_LOG_LIMIT = 64 << 20
_LOOK_AT_LOG_EVERY = 30.0
_LAST_LINES = 2000
"""Bytes of an engine's log that are searched for its last words."""
_KEPT_ENV = ("PATH", "HOME", "LANG", "LC_ALL", "TMPDIR", "TZ", "LD_LIBRARY_PATH", "USER", "LOGNAME")
_KEPT_PREFIXES = (
    "CUDA",
    "NVIDIA",
    "ROCM",
    "HIP",
    "HSA",
    "ASCEND",
    "VLLM",
    "HF_",
    "OMP_",
    "GGML_",
    "LLAMA_",
    "SSL_",
)


class InstanceFailed(Exception):
    """A life that ended without being asked to. ``str()`` is the sentence for its record."""


@attrs.define
class Ending:
    """Set before a life is cancelled because the instance is not wanted any more: then its engine ends too."""

    wanted: bool = False


@attrs.frozen(kw_only=True)
class World:
    """What lives share: the owners of files, ports and reports, and where things lie."""

    files: Files
    ports: PortLeases
    reports: Reports
    prober: Prober
    intent: Intent
    builds: Callable[[], tuple[EngineBuild, ...]]
    device_type: Callable[[Placement], str | None]
    cpu_count: float | None
    data_dir: Path
    log_dir: Path
    now: Callable[[], datetime]

    def state_file(self, instance_id: int) -> Path:
        """Where the engine of an instance is written down for the next daemon."""
        return self.data_dir / "run" / f"instance-{instance_id}.json"

    def log_file(self, instance_id: int) -> Path:
        """Where the engine of an instance writes (behaviour.md s.1.8)."""
        return self.log_dir / "serve" / f"{instance_id}.log"


async def run_instance(
    instance: ModelInstance, model: Model, world: World, ending: Ending, served: Callable[[], None]
) -> None:
    """Live one life. Never returns: raises ``InstanceFailed`` when it ends by itself, else is cancelled.

    ``served`` is called when the engine became ready. On cancellation the engine is ended when the instance is not
    wanted any more or the daemon is being stopped; otherwise it goes on, for the next daemon to adopt.
    """
    placement = instance.placement
    if placement is None:
        raise InstanceFailed("The instance was assigned without a place; this is a fault of the server")
    _say(world, instance, InstanceState.INITIALIZING, "")
    async with AsyncExitStack() as stack:
        try:
            group, port, launch = await _running_engine(instance, model, placement, world, ending, stack)
            await _become_ready(group, port, launch, instance, world)
            served()
            _say(world, instance, InstanceState.RUNNING, placement.note, pid=group.pid, port=port)
            await _serve(group, port, launch, instance, world)
        except GpustackError as error:
            raise InstanceFailed(str(error)) from error


async def _running_engine(
    instance: ModelInstance,
    model: Model,
    placement: Placement,
    world: World,
    ending: Ending,
    stack: AsyncExitStack,
) -> tuple[Group, int, Launch]:
    """The engine as a process, adopted from a former daemon or started now."""
    engine = engine_for(model)
    adopted = await _adopted(instance, world)
    if adopted is not None:
        port = stack.enter_context(world.ports.keep(adopted.state.port or 0, instance.name))
        stack.push_async_callback(_let_go, adopted, instance, world, ending, _grace_of(adopted.state))
        log.info("Adopted a running engine: instance=%s pid=%d port=%d", instance.name, adopted.pid, port)
        launch = _describe(
            engine, instance, model, placement, world, port, instance.resolved_path or "", None
        )
        return adopted, port, launch
    path, projector = "", None
    if engine.fetches(model):
        path, projector = await _files(instance, world)
    port = stack.enter_context(world.ports.lease(instance.name))
    launch = _describe(engine, instance, model, placement, world, port, path, projector)
    _say(world, instance, InstanceState.STARTING, "", port=port, ports=(port,), resolved_path=path)
    group = await _start(launch, instance, port, world)
    stack.push_async_callback(_let_go, group, instance, world, ending, launch.stop_grace)
    log.info(
        "Started an engine: instance=%s engine=%s pid=%d port=%d", instance.name, engine.name, group.pid, port
    )
    return group, port, launch


async def _adopted(instance: ModelInstance, world: World) -> Group | None:
    state = read_state(world.state_file(instance.id))
    if not isinstance(state, GroupState):
        return None
    group = adopt(state) if state.generation == instance.generation and state.port else None
    if group is None:
        await end_remains(state, grace=_grace_of(state))
        forget_state(world.state_file(instance.id))
    return group


async def _files(instance: ModelInstance, world: World) -> tuple[str, str | None]:
    said_downloading = False

    def progress(percent: float) -> None:
        nonlocal said_downloading
        said_downloading = True
        _say(world, instance, InstanceState.DOWNLOADING, "", download_progress=percent)

    files = await world.files.ensure(instance.source, progress=progress)
    if said_downloading:
        _say(world, instance, InstanceState.DOWNLOADING, "", download_progress=100.0)
    return str(files.main_path), None if files.mmproj_path is None else str(files.mmproj_path)


def _describe(
    engine: Engine,
    instance: ModelInstance,
    model: Model,
    placement: Placement,
    world: World,
    port: int,
    path: str,
    projector: str | None,
) -> Launch:
    build = next((b for b in world.builds() if b.engine == engine.name), None)
    if build is None:
        raise InstanceFailed(f"This worker has no {engine.name} engine; run 'gpustack doctor' there")
    return engine.launch(
        LaunchContext(
            model=model,
            instance=instance,
            placement=placement,
            model_path=path,
            mmproj_path=projector,
            port=port,
            build=build,
            data_dir=str(world.data_dir),
            device_type=world.device_type(placement),
            cpu_count=world.cpu_count,
        )
    )


async def _start(launch: Launch, instance: ModelInstance, port: int, world: World) -> Group:
    state_file = world.state_file(instance.id)
    state_file.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    try:
        return await spawn_group(
            launch.argv,
            env={**inherited(os.environ), **launch.env},
            cwd=None if launch.cwd is None else Path(launch.cwd),
            log=Output(world.log_file(instance.id)),
            state_file=state_file,
            port=port,
            generation=instance.generation,
            meta={"instance": instance.name, "grace": f"{launch.stop_grace:g}"},
            now=world.now,
        )
    except FileNotFoundError as error:
        raise InstanceFailed(f"The engine cannot be started: {error}") from error
    except OSError as error:
        raise InstanceFailed(f"The engine cannot be started: {error.strerror or error}") from error


def inherited(environment: Mapping[str, str]) -> dict[str, str]:
    """What an engine gets of the daemon's own environment: paths and drivers, never the daemon's secrets."""
    return {
        name: value
        for name, value in environment.items()
        if name != "HF_TOKEN" and (name in _KEPT_ENV or name.startswith(_KEPT_PREFIXES))
    }


async def _become_ready(
    group: Group, port: int, launch: Launch, instance: ModelInstance, world: World
) -> None:
    async def ready() -> None:
        await world.prober.until_ready(port, launch.readiness)

    async def ended() -> None:
        await group.wait()

    with trio.move_on_after(launch.start_deadline) as patience:
        if await first_of(ready, ended) == 1:
            raise InstanceFailed(_obituary("before it was ready", await group.wait(), instance, world))
    if patience.cancelled_caught:
        raise InstanceFailed(f"The engine was not ready within {launch.start_deadline:.0f} s; see its log")


async def _serve(group: Group, port: int, launch: Launch, instance: ModelInstance, world: World) -> None:
    async def ended() -> None:
        await group.wait()

    async def hung() -> None:
        await world.prober.until_dead(port, launch.liveness)

    async def bound_log() -> None:
        while True:
            await trio.sleep(_LOOK_AT_LOG_EVERY)
            await trio.to_thread.run_sync(trim, world.log_file(instance.id), _LOG_LIMIT)

    which = await first_of(ended, hung, bound_log)
    if which == 0:
        raise InstanceFailed(_obituary("", await group.wait(), instance, world))
    silent = launch.liveness.period * launch.liveness.failures
    raise InstanceFailed(
        f"The engine has not answered {launch.liveness.path} for {silent:.0f} s and is restarted"
    )


async def _let_go(group: Group, instance: ModelInstance, world: World, ending: Ending, grace: float) -> None:
    """At the end of a life, however it came: end the engine unless it is to be found by the next daemon."""
    daemon_leaves = trio.current_effective_deadline() == float("-inf") and not (
        ending.wanted or world.intent.stopping
    )
    if daemon_leaves and group.alive:
        log.info("Leaving an engine running: instance=%s pid=%d", instance.name, group.pid)
        return
    if await group.end(grace) is not None:
        forget_state(world.state_file(instance.id))


def _grace_of(state: GroupState) -> float:
    try:
        return min(max(float(state.meta.get("grace", "10")), 0.0), 120.0)
    except ValueError:
        return 10.0


def _say(
    world: World,
    instance: ModelInstance,
    state: InstanceState,
    message: str,
    *,
    pid: int | None = None,
    port: int | None = None,
    ports: tuple[int, ...] | None = None,
    download_progress: float | None = None,
    resolved_path: str | None = None,
) -> None:
    world.reports.instance(
        instance.id,
        InstanceReport(
            state=state,
            state_message=message,
            pid=pid,
            port=port,
            ports=ports if ports is not None or port is None else (port,),
            download_progress=download_progress,
            resolved_path=resolved_path,
        ),
    )


def _obituary(when: str, how: Exit, instance: ModelInstance, world: World) -> str:
    if how.signal is not None:
        ended = f"was ended by signal {how.signal}"
    elif how.code is not None:
        ended = f"exited with code {how.code}"
    else:
        ended = "ended"
    words = _last_words(world.log_file(instance.id))
    return f"The engine {ended}{' ' + when if when else ''}{': ' + words if words else '; see its log'}"


def _last_words(path: Path) -> str:
    """The last line of the log that is worth showing, control characters removed."""
    try:
        with path.open("rb") as file:
            file.seek(0, os.SEEK_END)
            file.seek(max(0, file.tell() - _LAST_LINES))
            lines = file.read().decode(errors="replace").splitlines()
    except OSError:
        return ""
    plain = ["".join(c for c in line if c.isprintable()).strip() for line in lines]
    return next((line[:300] for line in reversed(plain) if line), "")


__all__ = ["Ending", "InstanceFailed", "World", "inherited", "run_instance"]
