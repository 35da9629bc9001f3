"""What a long-lived thing looks like: a name, and a ``run`` that ends only when it is cancelled."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any, Protocol

import attrs
import trio


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
