"""The owner of this machine's Ray: makes it the head, a node of another head, or nothing, as it is told."""

from __future__ import annotations

import logging
import math
from collections.abc import Awaitable, Callable, Mapping, Sequence
from datetime import datetime
from functools import partial
from typing import NoReturn

import attrs
import trio

from gpustack.domain.ray import RayHead, RayNodeStatus, RayState
from gpustack.engines.ray import RayPorts, RayStart, driver_environment, split_range
from gpustack.errors import Unavailable
from gpustack.nursery.limiter import threads
from gpustack.nursery.restart import RestartPolicy
from gpustack.nursery.wake import AsyncValue, first_of
from gpustack.ray.process import (
    RayPlaces,
    RayProcess,
    adopt_ray,
    is_free,
    make_folder,
    refuse_taken_ports,
    start_ray,
)
from gpustack.ray.program import ABSENT, RayProgram, ask_version, find, other_version, reaches

log = logging.getLogger(__name__)

_STARTS_WITHIN = 180.0
_REACHES_WITHIN = 5.0
_UNDECIDED_FOR = 15.0
"""Seconds after the daemon's start for which an adopted Ray is kept while nobody has said yet what is wanted."""
BACK_OFF = RestartPolicy(first=1.0, factor=2.0, ceiling=60.0, budget=None, window=3600.0, stable_after=120.0)
_threads = threads("ray programs", 1)


@attrs.frozen(kw_only=True)
class RayDevices:
    """The devices that this machine offers to Ray, as it counts them."""

    gpus: int = 0
    npus: int = 0
    cpus: int | None = None
    """``None``: Ray counts them."""


@attrs.frozen(kw_only=True)
class RaySettings:
    """What the daemon's configuration says. Functions that may block are called in threads."""

    ports: RayPorts
    arguments: tuple[str, ...]
    places: RayPlaces
    worker_uuid: str
    """Of the worker in this daemon; empty where there is none."""
    address: Callable[[], str]
    """The address by which other machines reach this one. May block."""
    interface: Callable[[str], str | None]
    """The network interface that holds an address. May block."""
    token: Callable[[], str]
    """May block."""
    environment: Callable[[], Mapping[str, str]]
    """What Ray inherits."""
    devices: Callable[[], Awaitable[RayDevices]]
    """Waits until the machine was measured."""
    beside: Callable[[], Awaitable[Sequence[str | None]]]
    """The paths of programs beside which ``ray`` is looked for."""
    incarnation: Callable[[], str]
    """A new name for a head."""
    places_within: float
    """Seconds for which vLLM waits for its places in the cluster."""
    ends: Callable[[], bool]
    """Whether Ray ends with this daemon: only after a plain stop."""
    now: Callable[[], datetime]


@attrs.frozen
class ToldHead:
    """What the server says: which head there is, or that there is none."""

    head: RayHead | None


@attrs.frozen
class _Wish:
    """What this machine's Ray shall be: a node of the head at ``address``, or the head where that is ``None``."""

    address: str | None = None
    incarnation: str | None = None
    version: str | None = None

    def is_met_by(self, process: RayProcess) -> bool:
        if self.address is None:
            return process.is_head
        return process.head_address == self.address and process.incarnation == self.incarnation


@attrs.define(eq=False, repr=False)
class RayMachine:
    """A service: one Ray, started again with growing pauses whenever it ends.

    Stop engines before it. What it started outlives a daemon that crashes or hands over, and is adopted by the next.
    """

    _settings: RaySettings
    leads: AsyncValue[bool | None] = attrs.field(factory=lambda: AsyncValue[bool | None](None))
    """Whether the server of this daemon leads; ``None`` until it does for the first time. Set by that server."""
    told: AsyncValue[ToldHead | None] = attrs.field(factory=lambda: AsyncValue[ToldHead | None](None))
    """What the server said to the worker of this daemon; ``None`` before it said anything."""
    up: AsyncValue[RayProcess | None] = attrs.field(factory=lambda: AsyncValue[RayProcess | None](None))
    """The Ray that runs and belongs to its cluster."""
    status: RayNodeStatus = RayNodeStatus(state=RayState.DOWN, message="the server has no head of Ray")
    back_off: RestartPolicy = BACK_OFF
    _process: RayProcess | None = None
    _failures: tuple[float, ...] = ()
    _complained_of: str = ""
    _program: RayProgram | None = None
    """As of the last start."""
    _token: str = attrs.field(default="", repr=False)
    """As of the last start."""
    name: str = "ray"

    async def run(self, *, task_status: trio.TaskStatus[None]) -> None:
        try:
            await self._take_over()
            task_status.started()
            await self._decided()
            while True:
                wish = self._wanted()
                if wish is None:
                    await self._end("the server has no head of Ray")
                    await self._changed_from(wish)
                    continue
                fault = await self._live_while_wanted(wish)
                if fault is not None:
                    await self._end(str(fault))
                    await self._pause(wish, str(fault))
        finally:
            if self._process is not None:
                self.up.set(None)
                await self._process.release(end=self._settings.ends())
                self._process = None

    # --- what gangs ask of it

    @property
    def address(self) -> str | None:
        return None if self.up.value is None else self.up.value.address

    @property
    def incarnation(self) -> str | None:
        return None if self.up.value is None else self.up.value.incarnation

    @property
    def is_up(self) -> bool:
        return self.up.value is not None

    async def until_up(self, tell: Callable[[str], None]) -> None:
        """Return once this machine belongs to a cluster; at once if it does. Cancellable, without a deadline.

        ``tell`` is given a sentence on what is waited for, and another one when that changes.
        """
        told, revision = "", self.up.revision
        while not self.is_up:
            sentence = "Waiting for Ray on this worker"
            if self.status.state is RayState.DOWN:
                sentence += f": {self.status.message}"
            if sentence != told:
                told = sentence
                tell(sentence)
            revision, _ = await self.up.changed(revision)

    async def until_down(self) -> str:
        """Return once this machine has left the cluster that it belongs to now, also where it has joined another one
        since: the sentence that says why. Cancellable."""
        incarnation, revision = self.incarnation, self.up.revision
        while incarnation is not None and self.incarnation == incarnation:
            revision, _ = await self.up.changed(revision)
        return f"Ray went down on this worker: {self.status.message or 'another head took over'}"

    def environment(self) -> Mapping[str, str]:
        """What a program on this machine needs to use the cluster, with secrets. Raises ``Unavailable`` while it is not
        up."""
        if self.up.value is None:
            raise Unavailable(f"Ray is not up on this worker: {self.status.message or self.status.state}")
        return driver_environment(self.up.value.address, self._token, self._settings.places_within)

    @property
    def metrics_port(self) -> int:
        """Where Ray's own metrics of this machine are."""
        return self._ports.metrics_export

    # --- what is wanted

    def _wanted(self) -> _Wish | None:
        if self.leads.value:
            return _Wish()
        head = None if self.told.value is None else self.told.value.head
        if head is None or head.worker_uuid == self._settings.worker_uuid != "":
            return None
        return _Wish(head.address, head.incarnation, head.ray_version)

    async def _changed_from(self, wish: _Wish | None, at_most: float = math.inf) -> None:
        """Return once something else than ``wish`` is wanted, or after ``at_most`` seconds."""
        with trio.move_on_after(at_most):
            while self._wanted() == wish:
                await self._told_more()

    async def _told_more(self) -> None:
        await first_of(
            partial(self.leads.changed, self.leads.revision), partial(self.told.changed, self.told.revision)
        )

    async def _decided(self) -> None:
        """Keep what was adopted until those who know have said what is wanted, but not for ever."""
        with trio.move_on_after(_UNDECIDED_FOR):
            while self._process is not None and self._is_undecided(self._process):
                await self._told_more()

    def _is_undecided(self, process: RayProcess) -> bool:
        told = self.told.value
        if not process.is_head:
            return told is None and not self.leads.value
        other = told is not None and told.head is not None and told.head.incarnation != process.incarnation
        return self.leads.value is None and not other

    # --- one life of Ray

    async def _take_over(self) -> None:
        """Adopt what a former daemon left. It counts as up at once, so that nobody takes its head for gone."""
        try:
            self._process = await adopt_ray(self._settings.places)
        except Unavailable as fault:
            log.error("A former Ray is still there: reason=%s", fault)
        if self._process is not None and await self._process.says_started():
            self._token = await _threads.run(self._settings.token)
            self._note_up(self._process)

    async def _live_while_wanted(self, wish: _Wish) -> Unavailable | None:
        """Run Ray as wanted; returns why it ended, or ``None`` when something else is wanted."""
        faults: list[Unavailable] = []

        async def live() -> None:
            try:
                await self._live(wish)
            except Unavailable as fault:
                faults.append(fault)

        await first_of(live, partial(self._changed_from, wish))
        return faults[0] if faults else None

    async def _live(self, wish: _Wish) -> NoReturn:
        """Start it, or go on with what was adopted. Raises ``Unavailable`` once it has ended, or cannot be started."""
        process = self._process
        if process is not None and not (wish.is_met_by(process) and process.terms == self._terms(wish)):
            await self._end("another one is wanted")
        if self._process is None:
            self.status = RayNodeStatus(
                state=RayState.STARTING, head=wish.address is None, address=wish.address
            )
            self._process = await self._start(wish)
        process = self._process
        if self.up.value is not process:
            await process.started(_STARTS_WITHIN, self._ports)
            self._note_up(process)
        await process.group.wait()
        raise Unavailable(await process.reason_of_end(self._ports))

    @property
    def _ports(self) -> RayPorts:
        return self._settings.ports.given(self._settings.arguments)

    def _terms(self, wish: _Wish) -> str:
        """Tells what Ray is started with, as far as the configuration says it."""
        return repr((self._ports, self._settings.arguments, wish.address))

    async def _start(self, wish: _Wish) -> RayProcess:
        own = self._settings
        environment = {**own.environment()}
        program = await self._find(environment)
        if wish.address is not None:
            await _refuse_head(wish, program)
        refuse_taken_ports(self._ports, head=wish.address is None)
        ports, metric_ports = split_range(self._ports, is_free)
        devices, ip = await own.devices(), await _threads.run(own.address)
        self._token, interface = await _threads.run(own.token), await _threads.run(own.interface, ip)
        start = RayStart(
            program=program.path,
            ip=ip,
            ports=ports,
            folder=await make_folder(own.places),
            head_address=wish.address,
            cpus=devices.cpus,
            gpus=devices.gpus,
            npus=devices.npus,
            arguments=own.arguments,
            metric_ports=metric_ports,
        )
        log.info("Starting Ray: part=%s address=%s", "node" if wish.address else "head", wish.address or ip)
        return await start_ray(
            start,
            environment={**environment, **start.environment(self._token, interface)},
            incarnation=wish.incarnation or own.incarnation(),
            version=program.version,
            terms=self._terms(wish),
            places=own.places,
            now=own.now,
        )

    async def _find(self, environment: Mapping[str, str]) -> RayProgram:
        beside = await self._settings.beside()
        path = await _threads.run(find, beside, environment.get("PATH"))
        if path is None:
            raise Unavailable(f"{ABSENT}; gpustack doctor says whether a vLLM that is here can be used")
        self._program = await ask_version(path, environment, self._program)
        return self._program

    def _note_up(self, process: RayProcess) -> None:
        self._complained_of = ""
        self.status = RayNodeStatus(
            state=RayState.UP,
            head=process.is_head,
            address=process.address,
            incarnation=process.incarnation,
        )
        log.info(
            "Ray is up: part=%s head=%s version=%s pid=%d%s",
            "head" if process.is_head else "node",
            process.address,
            process.version or "unknown",
            process.group.pid,
            " adopted" if process.adopted else "",
        )
        self.up.set(process)

    async def _end(self, why: str) -> None:
        """End what runs, if anything does, with all that it left."""
        self.status = RayNodeStatus(state=RayState.DOWN, message=why)
        if self.up.value is not None:
            self.up.set(None)
        if self._process is not None:
            process = self._process
            log.info("Ending Ray: pid=%d reason=%s", process.group.pid, why)
            await process.release(end=True)
            self._process = None

    async def _pause(self, wish: _Wish, why: str) -> None:
        """Wait before the next try, or until something else is wanted."""
        now = trio.current_time()
        self._failures = self.back_off.recent((*self._failures, now), now)
        delay = self.back_off.delay(self._failures, now) or self.back_off.ceiling
        level = logging.DEBUG if why == self._complained_of else logging.WARNING
        log.log(level, "Ray is not up, trying again in %.0f s: %s", delay, why)
        self._complained_of = why
        self.up.set(None)  # nothing is up before either: this tells those who wait what is wrong
        await self._changed_from(wish, delay)

    def __repr__(self) -> str:
        return f"<RayMachine: {self.status.state}{' as head' if self.status.head else ''}>"


async def _refuse_head(wish: _Wish, program: RayProgram) -> None:
    """Raise ``Unavailable`` for a head that cannot be joined from here."""
    fault = other_version(program.version, wish.version)
    if fault is not None:
        raise Unavailable(fault)
    host, _, port = (wish.address or "").rpartition(":")
    if not await reaches(host.strip("[]"), int(port), _REACHES_WITHIN):
        raise Unavailable(
            f"Ray's head at {wish.address} cannot be reached from here: --ray-port of the server must be open to the "
            "workers"
        )
