"""Nested tiers of services: what is opened first stops last, however the block ends."""

from __future__ import annotations

import logging
import math
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from contextvars import ContextVar
from typing import Any

import attrs
import trio

from .restart import RestartPolicy
from .service import FirstTaskStatus, Service, ServiceReturned, supervise

log = logging.getLogger(__name__)

_DEPTH = 32
"""Levels of tasks that ``tree`` shows."""

_enclosing: ContextVar[Tier | None] = ContextVar("enclosing tier", default=None)


@attrs.define(eq=False)
class _TierMember:
    """One service of a tier, from the call of ``start`` until its task is gone."""

    name: str
    stop_within: float
    scope: trio.CancelScope = attrs.field(factory=trio.CancelScope)
    gone: trio.Event = attrs.field(factory=trio.Event)


@attrs.define(eq=False, repr=False)
class Tier:
    """Services that stop together, newest first, after everything opened inside the tier has stopped."""

    name: str
    stop_within: float
    _nursery: trio.Nursery
    _restart: RestartPolicy | None
    _inner: set[Tier] = attrs.field(factory=set)
    _members: list[_TierMember] = attrs.field(factory=list)
    _stopping: bool = False

    @property
    def unwinds_within(self) -> float:
        """Seconds from a cancellation until this tier and all inside it have stopped, at worst."""
        return self.stop_within + max((tier.unwinds_within for tier in self._inner), default=0.0)

    async def start(
        self, service: Service, *, restart: RestartPolicy | None = None, stop_within: float | None = None
    ) -> Any:
        """Start ``service`` and return the value that it passes to ``started``; raises what it raises before that.

        From then on only this tier ends it: a cancellation from outside, or the failure of another service, reaches it
        after the inner block has ended. With ``restart`` (else the tier's own) it is supervised; with ``NEVER`` a
        failure ends the tier at once. ``stop_within`` are the seconds that services opened before it wait for its end,
        within the bound of the tier.
        """
        if self._stopping:
            raise RuntimeError(f"tier {self.name} is stopping and takes no new service")
        bound = self.stop_within if stop_within is None else stop_within
        task_name = f"{self.name}/{service.name}"
        return await self._nursery.start(
            self._run, service, restart or self._restart, _TierMember(service.name, bound), name=task_name
        )

    async def _run(
        self,
        service: Service,
        restart: RestartPolicy | None,
        member: _TierMember,
        *,
        task_status: trio.TaskStatus[Any],
    ) -> None:
        if self._stopping:  # the stop began between the call of start and this step
            raise RuntimeError(f"tier {self.name} is stopping and takes no new service")
        task = trio.lowlevel.current_task()
        _enclosing.set(None)  # tiers that a service opens stop with the service

        def on_started(value: Any) -> None:
            task_status.started(value)
            # If the start was cancelled before this, the task is still in the nursery of its caller, which waits for
            # the task to end: shielded, it would not see that cancellation.
            if task.parent_nursery is self._nursery:
                member.scope.shield = True

        status = FirstTaskStatus(on_started)
        self._members.append(member)
        try:
            with member.scope:
                if restart is None:
                    await service.run(task_status=status)
                else:
                    await supervise(service, restart=restart, task_status=status)
        finally:
            self._members.remove(member)
            member.gone.set()
        if not member.scope.cancel_called:
            raise ServiceReturned(f"service {service.name} of tier {self.name} returned")

    async def _bound_shields(self, scope: trio.CancelScope) -> None:
        """Once the tier is cancelled, set a deadline on every shield, so that an inner block that hangs does not keep
        outer services from an orderly stop."""
        with scope:
            try:
                await trio.sleep_forever()
            finally:
                deadline = trio.current_time() + self.unwinds_within
                for member in self._members:
                    member.scope.deadline = min(member.scope.deadline, deadline)

    async def _stop(self) -> None:
        self._stopping = True
        with trio.CancelScope(shield=True, deadline=trio.current_time() + self.stop_within):
            for member in reversed(self._members.copy()):
                member.scope.cancel()
                with trio.move_on_after(member.stop_within):
                    await member.gone.wait()
        for member in self._members:
            member.scope.cancel()
            # A nursery waits for all its tasks, so the log says which one does not stop.
            log.error("Service %s/%s has not stopped in time", self.name, member.name)

    def __repr__(self) -> str:
        doing = "stopping" if self._stopping else "running"
        names = ", ".join(member.name for member in self._members) or "nothing"
        return f"<Tier {self.name}: {doing} {names}>"


@asynccontextmanager
async def open_tier(
    name: str, *, restart: RestartPolicy | None = None, stop_within: float = 30.0
) -> AsyncIterator[Tier]:
    """A tier for the block: its services stop after the block has ended, one by one, newest first.

    A service that fails and is not restarted cancels the block; the other services of this tier and of outer ones go on
    until the block has ended, then the failure is raised (in an exception group). The tier stops its services within
    ``stop_within`` seconds: after that, all that are left are cancelled at once.
    """
    if not 0 < stop_within < math.inf:
        raise ValueError("stop_within must be a finite number of seconds, or a shield could last for ever")
    outer = _enclosing.get()
    async with trio.open_nursery() as nursery:
        tier = Tier(name, stop_within, nursery, restart)
        shields = trio.CancelScope()
        nursery.start_soon(tier._bound_shields, shields, name=f"{name}/_shields")
        if outer is not None:
            outer._inner.add(tier)
        _enclosing.set(tier)
        try:
            yield tier
        finally:
            _enclosing.set(outer)
            await tier._stop()
            shields.cancel()
            if outer is not None:
                outer._inner.discard(tier)


def tree(task: trio.lowlevel.Task) -> dict[str, Any]:
    """The task and those below it: ``{"name": ..., "children": [...]}``.

    Tasks of one tier are grouped under its name. Contains names only, because it is shown to users.
    """
    return _node(task, task.name, _DEPTH)


def draw_tree(task: trio.lowlevel.Task) -> str:
    """The same, drawn with lines."""
    root = tree(task)
    return "\n".join([root["name"], *_lines(root["children"], "")])


def _node(task: trio.lowlevel.Task, name: str, depth: int) -> dict[str, Any]:
    if depth == 0:
        return {"name": name, "children": [{"name": "…", "children": []}]}
    children = [child for nursery in task.child_nurseries for child in _grouped(nursery, depth - 1)]
    return {"name": name, "children": children}


def _grouped(nursery: trio.Nursery, depth: int) -> Iterator[dict[str, Any]]:
    tiers: dict[str, list[dict[str, Any]]] = {}
    for task in sorted(nursery.child_tasks, key=lambda task: task.name):
        tier, slash, name = task.name.partition("/")
        if not slash:
            yield _node(task, task.name, depth)
        elif not name.startswith("_"):  # a tier's own chores
            tiers.setdefault(tier, []).append(_node(task, name, depth))
        else:
            tiers.setdefault(tier, [])
    for tier, children in tiers.items():
        yield {"name": tier, "children": children}


def _lines(children: list[dict[str, Any]], indent: str) -> Iterator[str]:
    for place, child in enumerate(children, start=1):
        last = place == len(children)
        yield f"{indent}{'└─' if last else '├─'} {child['name']}"
        yield from _lines(child["children"], indent + ("   " if last else "│  "))
