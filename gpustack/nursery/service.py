"""The contract of a service: a name, and a ``run`` that ends only when it is cancelled; and its supervision."""

from __future__ import annotations

import logging
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
    """The ``run`` of a service returned without being cancelled."""


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
    """A task status that passes on the first ``started`` and ignores those of later runs."""

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
    task_status: trio.TaskStatus[Any] = trio.TASK_STATUS_IGNORED,
) -> None:
    """Run ``service`` until cancelled, again after each failure or return.

    Raises its exception when it failed before its first ``started`` (its starter handles that), and when ``restart``
    allows no further try. Each failure that leads to a restart is logged once with its traceback.
    """
    failures: tuple[float, ...] = ()
    started = FirstTaskStatus(task_status.started)
    while True:
        try:
            await service.run(task_status=started)
            raise ServiceReturned(f"service {service.name} returned")
        # Every unexpected exception leads to a restart, exception groups included. Cancellation, also in a group with
        # failures, is a BaseException and passes.
        except Exception as failure:
            now = trio.current_time()
            failures = restart.recent((*failures, now), now)
            delay = restart.delay(failures, now)
            if delay is None or not started.done:
                raise
            log.error("Service %s failed, trying again in %.1f s", service.name, delay, exc_info=failure)
        await trio.sleep(delay)
