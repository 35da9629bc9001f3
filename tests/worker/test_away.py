"""The server is away for a while: engines go on, and what happened is told afterwards, in order."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable

import trio

from gpustack.domain.lifecycle import InstanceState as S
from tests.worker.conftest import Start
from tests.worker.daemon import custom_model, instance_of, utc_now
from tests.worker.server import PATIENCE, FakeServer
from tests.worker.test_instance import pid_of, port_of


async def until(holds: Callable[[], bool]) -> None:
    """For what only the worker knows."""
    with trio.fail_after(PATIENCE):
        while not holds():  # noqa: ASYNC110  it tells nobody
            await trio.sleep(0.02)


async def test_what_happened_while_the_server_was_away_is_told_in_order(
    server: FakeServer, start: Start, nursery: trio.Nursery
) -> None:
    server.put(model := custom_model())
    server.put(instance_of(model))
    worker = await start()
    first = await server.until_state(S.RUNNING)
    await server.stop()
    os.kill(pid_of(first), signal.SIGKILL)
    await until(lambda: not worker.supervisor.ready_instances)
    await until(lambda: worker.supervisor.ready_instances == {1: "m-1"})
    assert server.states()[-1] is S.RUNNING
    await server.start(nursery)
    await server.until(lambda: server.instance().restart_count == 1 and server.instance().state is S.RUNNING)
    assert server.states()[2:] == [S.RUNNING, S.ERROR, S.INITIALIZING, S.STARTING, S.RUNNING]
    assert not server.refused
    assert (await worker.through(port_of(server.instance())))[0] == 200


async def test_an_engine_serves_on_while_the_server_is_away(
    server: FakeServer, start: Start, nursery: trio.Nursery
) -> None:
    server.put(model := custom_model())
    server.put(instance_of(model))
    worker = await start()
    running = await server.until_state(S.RUNNING)
    await server.stop()
    assert (await worker.through(port_of(running)))[0] == 200
    await server.start(nursery)
    server.change(deleted_at=utc_now())
    await server.until(lambda: not server.assigned.instances)


async def test_what_was_deleted_while_the_worker_could_not_hear_it_ends_afterwards(
    server: FakeServer, start: Start, nursery: trio.Nursery
) -> None:
    server.put(model := custom_model())
    server.put(instance_of(model))
    worker = await start()
    await server.until_state(S.RUNNING)
    await server.stop()
    server.drop("instances", 1)
    await server.start(nursery)
    await until(lambda: not worker.ports.held)


async def test_a_daemon_stopped_while_the_server_is_away_ends_its_engines_all_the_same(
    server: FakeServer, start: Start
) -> None:
    server.put(model := custom_model())
    server.put(instance_of(model))
    worker = await start()
    await server.until_state(S.RUNNING)
    await server.stop()
    with trio.fail_after(PATIENCE):
        await worker.stop()
    assert not worker.ports.held
