"""Keeps a service alive: waits and runs it again when it fails, until its budget is spent."""

from __future__ import annotations

import logging
import random
from collections.abc import Callable
from typing import Any

import trio

from .restart import RestartPolicy
from .service import FirstTaskStatus, Service, ServiceReturned

log = logging.getLogger(__name__)


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
