"""What describes an engine: the interface, what it is given, the process it asks for, and how that is judged."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from enum import StrEnum
from typing import Any, Protocol, runtime_checkable

import attrs

from gpustack.domain.facts import ModelFacts
from gpustack.domain.instance import ModelInstance, Placement
from gpustack.domain.memory_use import TermBytes
from gpustack.domain.model import Model
from gpustack.domain.worker import EngineBuild

from .adapter import Adapter
from .flag_list import FlagList
from .memory import SafetensorsMemory


@attrs.frozen(kw_only=True)
class Probe:
    """An HTTP GET on the engine's port, each ``period``; it succeeds with status 200 within ``timeout``. Seconds.

    The engine is taken for dead after ``failures`` in a row. Without a ``path`` a TCP connection suffices.
    """

    path: str | None
    period: float
    timeout: float
    failures: int = 1


@attrs.frozen(kw_only=True)
class WarmUp:
    """A POST of JSON that is made once an engine is ready, and before anybody is sent to it: the first request may take
    minutes. What is answered, and whether anything is within ``timeout`` seconds, does not matter."""

    path: str
    body: str
    timeout: float = 600.0


@attrs.frozen(kw_only=True)
class HealthPolicy:
    """How a running engine is judged. Seconds.

    It failed to start if it is not ready ``start_deadline`` after its start, and is killed if it still runs
    ``stop_grace`` after it was asked to end. Stored in the engine's state file: an engine of an older daemon is judged
    by what that one wrote, so fields may be added, with defaults, but not removed.
    """

    readiness: Probe | None
    """``None``: it is ready as soon as it runs, as far as can be seen from outside."""
    liveness: Probe | None
    """``None``: it is alive as long as it runs, as far as can be seen from outside."""
    start_deadline: float
    stop_grace: float
    warm_up: WarmUp | None = None


class StartOrder(StrEnum):
    """Which members of a gang start first."""

    FOLLOWERS_FIRST = "followers_first"
    """The main member starts once all followers are ready: it connects to their ports."""
    TOGETHER = "together"
    """The followers start with the main member: they connect to its ports."""


class PortPool(StrEnum):
    """From which range of ports a follower's are leased."""

    SERVICE = "service"
    RPC = "rpc"


@attrs.frozen(kw_only=True)
class GangPlan:
    """How an engine runs as a gang: one main process, which serves HTTP, and followers on other workers or devices."""

    order: StartOrder
    main_ports: int = 0
    """Ports that the main member listens on for the others, beside the one for HTTP."""
    follower_ports: int = 0
    follower_range: PortPool = PortPool.SERVICE
    fetches: bool = True
    """Whether each follower needs the model's files on its own worker."""
    delegated: bool = False
    """The main process itself starts what runs on the others' devices (through Ray): followers only stand for what
    they claim, and for the Ray node of their worker."""


@attrs.frozen(kw_only=True)
class GangMember:
    """One process of a gang as the others need to know it; ``ports`` are those that it leased."""

    index: int
    address: str
    ports: tuple[int, ...] = ()
    gpu_indexes: tuple[int, ...] = ()


@attrs.frozen(kw_only=True)
class Gang:
    """All members of one attempt, the main one first. What is not known yet is empty: with ``FOLLOWERS_FIRST`` the
    followers know nothing of the others, with ``TOGETHER`` everybody knows everybody."""

    attempt: int
    members: tuple[GangMember, ...]

    @property
    def main(self) -> GangMember:
        return self.members[0]

    @property
    def followers(self) -> tuple[GangMember, ...]:
        return self.members[1:]


@attrs.frozen(kw_only=True)
class LaunchContext:
    """Everything that an engine may need to describe its process, or that of one member of its gang."""

    model: Model
    instance: ModelInstance
    placement: Placement
    model_path: str
    mmproj_path: str | None = None
    port: int
    host: str = "127.0.0.1"
    api_key: str | None = attrs.field(default=None, repr=False)
    """The engine is to refuse requests without it. It goes into the environment, never on the command line."""
    build: EngineBuild
    data_dir: str
    device_type: str | None = None
    """Type of the devices placed on, e.g. ``cuda``; ``None`` on the CPU."""
    device_names: tuple[str, ...] | None = None
    """What visibility variables call the devices of this member (``visibility.visible_names``); ``None``: their
    indexes."""
    cpu_count: float | None = None
    """Logical cores that the worker may use; ``None`` if unknown."""
    member: int = 0
    """Whose process is to be described: 0 is the main one."""
    gang: Gang | None = None
    """``None`` for an engine that runs alone."""
    ports: tuple[int, ...] = ()
    """All ports leased for this member; the main one's first is ``port``, for HTTP."""
    address: str | None = None
    """This worker's address as the other workers reach it."""
    session_dir: str = ""
    """Where the worker puts ``LaunchSpec.files`` and ``views`` of this process."""
    interface: str | None = None
    """The network interface that has ``address``; ``None`` if none has (behind a NAT)."""
    extra_arguments: tuple[str, ...] = ()
    """What the operator of this worker adds to the command (``--rpc-server-args``)."""
    device_memory: Mapping[int, int] = attrs.field(factory=dict)
    """Bytes that each device of this worker has in all, by its index; without those that are unknown."""
    cann_version: str | None = None
    """The version of Ascend's toolkit that the operator of this worker names; ``None``: the one in use there."""
    cann_chip: str | None = None
    """The line of Ascend chips of the devices placed on, such as ``910b`` or ``310p``; ``None`` for others."""
    gfx: str | None = None
    """The compiler's name of the AMD chip placed on, such as ``gfx1101``; ``None`` for others."""
    known_flags: FlagList | None = None
    """The flags that this build has; ``None`` where nobody asked it, or it did not answer."""
    adapters: tuple[Adapter, ...] = ()
    """LoRA adapters to load at the start."""
    ray_environment: Mapping[str, str] | None = attrs.field(default=None, repr=False)
    """What a program needs to reach the Ray cluster; ``None`` for an engine that does not run on Ray."""

    @property
    def gpu_indexes(self) -> tuple[int, ...]:
        """The devices of this member."""
        return self.placement.share(self.member).gpu_indexes

    @property
    def visible_devices(self) -> tuple[str, ...]:
        """The same as visibility variables call them, by ascending index."""
        return tuple(map(str, sorted(self.gpu_indexes))) if self.device_names is None else self.device_names


@attrs.frozen(kw_only=True)
class FolderView:
    """A folder with links to everything in ``source``, but for JSON files of which keys are changed."""

    source: str
    changes: Mapping[str, Mapping[str, Any]]
    """By the name of a file, which may be missing in ``source``: top-level keys and their values."""


@attrs.frozen(kw_only=True)
class LaunchSpec:
    """The process to start: its command, what its environment has beyond the worker's own, and how it is judged."""

    argv: tuple[str, ...]
    env: Mapping[str, str]
    health: HealthPolicy
    files: Mapping[str, str] = attrs.field(factory=dict, repr=False)
    """Names and contents of files that it needs in ``LaunchContext.session_dir``; nobody else may read them."""
    views: Mapping[str, FolderView] = attrs.field(factory=dict)
    """Names and contents of folders that it needs there."""
    in_session: bool = False
    """Whether ``LaunchContext.session_dir`` is its working directory."""
    install: str = ""
    """What to tell people when the program is not there."""


@runtime_checkable
class ListsFlags(Protocol):
    """An engine whose program lists its own flags, so that parameters are checked against those of each version."""

    def help_arguments(self) -> tuple[str, ...]:
        """The arguments with which a build prints a help text that has all its flags."""

    @property
    def newest_flags(self) -> FlagList:
        """The flags of the newest version that we know; a build of that version need not be asked."""

    def faults_for(self, model: Model, known: FlagList) -> list[str]:
        """What is wrong with a deployment's parameters for a build that has the flags ``known``, a sentence each."""


@runtime_checkable
class TellsMemory(Protocol):
    """An engine whose log tells of the memory that it takes."""

    def memory_told(self, lines: Iterable[str], *, on_devices: bool) -> TermBytes:
        """What the lines of the log of one run say, in bytes. ``on_devices``: whether it was given any."""


class Engine(Protocol):
    """One kind of inference engine."""

    @property
    def name(self) -> str:
        """Its name inside, and in ``EngineBuild.engine``."""

    @property
    def wire_name(self) -> str:
        """Its name in the API (``backend``)."""

    @property
    def any_device(self) -> bool:
        """Whether it runs on every device, rather than on those only that its build says it drives."""

    @property
    def memory(self) -> SafetensorsMemory | None:
        """How it takes memory for safetensors; ``None`` where it does not load them, or nobody can tell."""

    @property
    def metrics(self) -> Mapping[str, str]:
        """Sample name on the engine's ``/metrics`` → unified name."""

    def serves(self, model: Model, facts: ModelFacts | None) -> bool:
        """Whether it runs this model when the deployment names no backend."""

    def faults(self, model: Model) -> list[str]:
        """What is wrong with the deployment for this engine, a sentence each; nothing wrong is empty."""

    def fetches(self, model: Model) -> bool:
        """Whether this model's files must be on the worker before the start."""

    def context(self, model: Model) -> int | None:
        """The most tokens that prompt and answer of one request may have together; ``None`` if nothing bounds them."""

    def gang(self, model: Model, *, ray: bool) -> GangPlan | None:
        """How it runs as a gang; ``None`` if it cannot. ``ray``: the workers form a Ray cluster."""

    def launch(self, context: LaunchContext) -> LaunchSpec:
        """The process to start, of the member that the context names. Call it only for a model without ``faults``."""
