"""The contract of a service: a name, and a ``run`` that ends only when it is cancelled; and its supervision."""

from __future__ import annotations

import logging
import random
from collections.abc import Awaitable, Callable
from typing import Any, Protocol

import attrs
import trio

from .restart import RestartPolicy

log = logging.getLogger(__name__)


class Service(Protocol):
    """Runs until cancelled. Calls ``task_status.started(value)`` once others may rely on it."""

    @property
    def name(self) -> str: ...

    async def run(self, *, task_status: trio.TaskStatus[Any]) -> None: ...


class ServiceReturned(RuntimeError):
    """A service that must run until cancelled came back."""


class ServiceFunction(Protocol):
    """The bare function of a service."""

    def __call__(self, *, task_status: trio.TaskStatus[Any]) -> Awaitable[None]: ...


@attrs.frozen
class FunctionService:
    """A service made of one function."""

    name: str
    _fn: ServiceFunction

    async def run(self, *, task_status: trio.TaskStatus[Any]) -> None:
        await self._fn(task_status=task_status)


def function_service(name: str, fn: ServiceFunction) -> FunctionService:
    """Make a service of an async function that takes ``task_status``."""
    return FunctionService(name, fn)


@attrs.define(eq=False)
class FirstTaskStatus:
    """A task status that passes on the first ``started`` and swallows those of later lives."""

    _onward: Callable[[Any], None]
    done: bool = False

    def started(self, value: Any = None) -> None:
        if not self.done:
            self.done = True
            self._onward(value)


async def supervise(
    service: Service,
    *,
    restart: RestartPolicy,
    clock: Callable[[], float] = trio.current_time,
    rng: random.Random | None = None,
    task_status: trio.TaskStatus[Any] = trio.TASK_STATUS_IGNORED,
) -> None:
    """Run ``service`` until cancelled, over and over if it fails or returns.

    Raises what it raised when it failed before it first reported ``started`` (nobody relies on it yet,
    and its starter wants to know), and when ``restart`` has no try left. Each failure survived is
    logged once with its traceback; one that is raised is left to whoever catches it.
    """
    failures: tuple[float, ...] = ()
    started = FirstTaskStatus(task_status.started)
    while True:
        try:
            await service.run(task_status=started)
            raise ServiceReturned(f"service {service.name} returned")
        # A supervisor survives whatever its service did not foresee, groups of it included. Cancellation,
        # also mixed with failures in one group, is a BaseException and not ours.
        except Exception as failure:
            now = clock()
            failures = restart.recent((*failures, now), now)
            delay = restart.delay(failures, now, rng=rng)
            if delay is None or not started.done:
                raise
            log.error("Service %s failed, trying again in %.1f s", service.name, delay, exc_info=failure)
        await trio.sleep(delay)
