"""Nested tiers of services: what is opened first stops last, whatever ends the block."""

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
    """Services that stop together, newest first, once everything opened inside them has unwound."""

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
        """Start ``service`` and return what it passes to ``started``; raises what it raises before that.

        From then on only this tier ends it: a cancellation from outside, or the failure of another
        service, reaches it after the inner block has unwound. With ``restart`` (else the tier's own) it
        is supervised; ``NEVER`` makes a failure end the tier at once. ``stop_within`` bounds how long the
        services opened before it wait for its end, inside the bound of the tier.
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
        if self._stopping:  # began between the call of start and our first step
            raise RuntimeError(f"tier {self.name} is stopping and takes no new service")
        task = trio.lowlevel.current_task()
        _enclosing.set(None)  # tiers a service opens for itself are part of its own end, not of ours

        def on_started(value: Any) -> None:
            task_status.started(value)
            # A start that was cancelled in the meantime keeps its task under the caller, who waits for it:
            # shielded there, it would never end.
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
        """Once the tier is cancelled, give every shield a deadline: an inner block that hangs then cannot
        keep the outer services from their own orderly end."""
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
            # No task can be abandoned: it holds up its nursery, and the log says whose fault that is.
            log.error("Service %s/%s has not stopped in time", self.name, member.name)

    def __repr__(self) -> str:
        doing = "stopping" if self._stopping else "running"
        names = ", ".join(member.name for member in self._members) or "nothing"
        return f"<Tier {self.name}: {doing} {names}>"


@asynccontextmanager
async def open_tier(
    name: str, *, restart: RestartPolicy | None = None, stop_within: float = 30.0
) -> AsyncIterator[Tier]:
    """A tier for the block: its services stop when the block has unwound, one by one, newest first.

    A service that fails for good cancels the block; services of this tier and outer ones go on until the
    block has unwound, then the failure is raised (in a group, as nurseries do). The tier as a whole stops
    its services within ``stop_within`` seconds: when those are over, all that is left is cancelled at once.
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

    Tasks of one tier are gathered under the tier's name. Shows names only, no locals: it is served to people.
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
