"""The Ray of a machine, with a stand-in for ``ray``: what it is told, what it becomes, and how it comes back."""

from __future__ import annotations

import itertools
import os
import socket
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from pathlib import Path

import attrs
import pytest
import trio

from gpustack.domain.ray import RayHead, RayState
from gpustack.engines.ray import RayPorts
from gpustack.errors import Unavailable
from gpustack.nursery.restart import RestartPolicy
from gpustack.ray.machine import RayDevices, RayMachine, RaySettings, ToldHead
from gpustack.ray.process import STATE_FILE, RayPlaces, adopt_ray
from tests.fakes.ray_program import RayProgram
from tests.nursery.programs import is_running
from tests.ports import free_ports

WITHIN = 60.0
SOON = RestartPolicy(first=0.05, ceiling=0.1, budget=None)


@attrs.define(eq=False)
class Bench:
    """A machine whose daemons come and go."""

    folder: Path
    program: RayProgram
    ports: RayPorts
    ends: bool = False
    """Whether Ray ends with the daemon."""
    has_program: bool = True
    numbers: itertools.count[int] = attrs.field(factory=itertools.count)

    @classmethod
    def within(cls, folder: Path) -> Bench:
        numbers = free_ports(9 + 20)
        first, last = numbers[9], numbers[-1]
        ports = RayPorts(
            *(), **dict(zip(_SINGLE, numbers, strict=False)), first_worker=first, last_worker=last
        )
        return cls(folder, RayProgram.within(folder / "bin"), ports)

    @property
    def places(self) -> RayPlaces:
        return RayPlaces(
            state_dir=self.folder / "run", log_file=self.folder / "ray.log", folders=self.folder / "ray"
        )

    def settings(self) -> RaySettings:
        async def devices() -> RayDevices:
            await trio.lowlevel.checkpoint()
            return RayDevices(gpus=2)

        async def beside() -> Sequence[str | None]:
            await trio.lowlevel.checkpoint()
            return [None, str(self.program.folder / "vllm")] if self.has_program else []

        return RaySettings(
            ports=self.ports,
            arguments=(),
            places=self.places,
            worker_uuid="mine",
            address=lambda: "127.0.0.1",
            interface=lambda address: "lo",
            token=lambda: "t0ken",
            environment=lambda: {"PATH": os.defpath},
            devices=devices,
            beside=beside,
            places_within=45.0,
            incarnation=lambda: f"own-{next(self.numbers)}",
            ends=lambda: self.ends,
            now=lambda: datetime.now(UTC),
        )

    @asynccontextmanager
    async def daemon(self) -> AsyncIterator[RayMachine]:
        machine = RayMachine(self.settings(), back_off=SOON)
        async with trio.open_nursery() as nursery:
            with trio.fail_after(WITHIN):
                await nursery.start(machine.run)
                yield machine
                nursery.cancel_scope.cancel()


_SINGLE = (
    *("node_manager", "object_manager", "runtime_env_agent", "dashboard_agent_grpc"),
    *("dashboard_agent_listen", "metrics_export", "gcs", "client_server", "dashboard"),
)


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    return Bench.within(tmp_path)


def head_at(address: str, incarnation: str = "theirs", version: str | None = "2.60.0") -> ToldHead:
    return ToldHead(RayHead(address=address, incarnation=incarnation, ray_version=version, worker_uuid="w"))


async def until(holds: Callable[[], object]) -> None:
    while not holds():  # noqa: ASYNC110  a process of its own is waited for
        await trio.sleep(0.02)


async def end_what_is_left(bench: Bench) -> None:
    left = await adopt_ray(bench.places)
    if left is not None:
        await left.release(end=True)


async def test_a_server_that_leads_makes_it_the_head_and_one_that_leads_no_more_ends_it(bench: Bench) -> None:
    async with bench.daemon() as machine:
        assert (machine.is_up, machine.address, machine.incarnation) == (False, None, None)
        with pytest.raises(Unavailable, match="Ray is not up on this worker: the server has no head"):
            machine.environment()
        machine.leads.set(True)
        await machine.until_up(print)
        assert machine.address == f"127.0.0.1:{bench.ports.gcs}"
        assert machine.incarnation == "own-0"
        assert machine.environment() == {
            "RAY_ADDRESS": machine.address,
            "RAY_AUTH_MODE": "token",
            "RAY_AUTH_TOKEN": "t0ken",
            "RAY_USAGE_STATS_ENABLED": "0",
            "GPUSTACK_RAY_PLACEMENT_GROUP_READY_TIMEOUT": "45",
        }
        assert "up as head" in repr(machine)
        folders = list((bench.folder / "ray").glob("*")) or [
            Path(bench.program.calls[0]["env"]["RAY_TMPDIR"])
        ]
        machine.leads.set(False)
        await until(lambda: not (bench.folder / "run" / STATE_FILE).exists())
        assert not machine.is_up
        assert not any(folder.exists() for folder in folders)
        assert not is_running(bench.program.calls[0]["pid"])


async def test_a_head_that_dies_is_started_anew_as_another_one(bench: Bench) -> None:
    async with bench.daemon() as machine:
        machine.leads.set(True)
        await machine.until_up(print)
        bench.program.die()
        why = await machine.until_down()
        assert why == "Ray went down on this worker: Of Ray's processes ended: raylet (signal 9)"
        await machine.until_up(print)
        assert machine.incarnation == "own-1"
        bench.ends = True
    assert len(bench.program.calls) == 2
    one, two = (call["argv"][call["argv"].index("--temp-dir") + 1] for call in bench.program.calls)
    assert one != two and not any(map(os.path.exists, (one, two)))


async def test_a_node_follows_the_head_that_it_is_told_of(bench: Bench) -> None:
    with socket.create_server(("127.0.0.1", 0)) as gcs:
        address = f"127.0.0.1:{gcs.getsockname()[1]}"
        async with bench.daemon() as machine:
            machine.told.set(head_at(address, "one"))
            await machine.until_up(print)
            assert (machine.address, machine.incarnation) == (address, "one")
            machine.told.set(head_at(address, "two"))
            await until(lambda: machine.incarnation != "one")
            await machine.until_up(print)
            assert machine.incarnation == "two"
            machine.told.set(ToldHead(None))
            await until(lambda: machine.incarnation != "two")
            await until(lambda: machine.status.state is RayState.DOWN)
            assert machine.status.message == "the server has no head of Ray"
            # The record of the head on this very machine makes no second Ray.
            machine.told.set(ToldHead(RayHead(address=address, incarnation="x", worker_uuid="mine")))
            await trio.testing.wait_all_tasks_blocked(0.05)
            assert machine.status.state is RayState.DOWN
    assert len(bench.program.calls) == 2


async def test_the_machine_of_a_new_leader_is_no_node_any_more(bench: Bench) -> None:
    with socket.create_server(("127.0.0.1", 0)) as gcs:
        address = f"127.0.0.1:{gcs.getsockname()[1]}"
        async with bench.daemon() as machine:
            machine.told.set(head_at(address))
            await machine.until_up(print)
            machine.leads.set(True)
            await until(lambda: machine.incarnation == "own-0")
            assert machine.status.head
            bench.ends = True
    assert [("--head" in call["argv"]) for call in bench.program.calls] == [False, True]


@pytest.mark.parametrize("part", ["head", "node"])
async def test_what_a_daemon_leaves_running_the_next_one_adopts(bench: Bench, part: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as gcs:
        told = head_at(f"127.0.0.1:{gcs.getsockname()[1]}")

        def tell(machine: RayMachine) -> None:
            if part == "head":
                machine.leads.set(True)
            else:
                machine.told.set(told)

        async with bench.daemon() as machine:
            tell(machine)
            await machine.until_up(print)
            incarnation = machine.incarnation
        try:
            async with bench.daemon() as machine:
                # At once: the head's record must not be taken back, nor the nodes be ended, in between.
                assert machine.is_up and machine.incarnation == incarnation
                await trio.testing.wait_all_tasks_blocked(0.05)
                tell(machine)
                await trio.testing.wait_all_tasks_blocked(0.05)
                assert machine.is_up and machine.incarnation == incarnation
                bench.ends = True
            assert len(bench.program.calls) == 1
            assert await adopt_ray(bench.places) is None
        finally:
            await end_what_is_left(bench)


async def test_what_was_left_is_ended_where_another_configuration_or_head_is_wanted(bench: Bench) -> None:
    async with bench.daemon() as machine:
        machine.leads.set(True)
        await machine.until_up(print)
    (former,) = bench.program.calls
    bench.ports = attrs.evolve(bench.ports, metrics_export=free_ports(1)[0])
    async with bench.daemon() as machine:
        assert machine.incarnation == "own-0"
        machine.leads.set(True)
        await until(lambda: machine.incarnation == "own-1")
        assert not is_running(former["pid"])
        bench.ends = True


async def test_a_busy_port_is_named_with_its_option_and_tried_again(bench: Bench) -> None:
    async with bench.daemon() as machine:
        with socket.create_server(("127.0.0.1", bench.ports.object_manager)):
            machine.leads.set(True)
            await until(lambda: "in use" in machine.status.message)
            named = f"Port {bench.ports.object_manager} (--ray-object-manager-port) of Ray in use"
            assert named in machine.status.message
            assert bench.program.calls == []
            told: list[str] = []
            async with trio.open_nursery() as nursery:
                nursery.start_soon(machine.until_up, told.append)
                await until(lambda: any(f"Waiting for Ray on this worker: {named}" in one for one in told))
                nursery.cancel_scope.cancel()
        await machine.until_up(print)
        bench.ends = True


async def test_an_absent_program_is_said_and_waited_for(bench: Bench) -> None:
    bench.has_program = False
    async with bench.daemon() as machine:
        machine.leads.set(True)
        await until(lambda: "There is no program ray" in machine.status.message)
        bench.has_program = True
        await machine.until_up(print)
        bench.ends = True


async def test_a_node_of_another_version_does_not_join(bench: Bench) -> None:
    with socket.create_server(("127.0.0.1", 0)) as gcs:
        address = f"127.0.0.1:{gcs.getsockname()[1]}"
        async with bench.daemon() as machine:
            machine.told.set(head_at(address, version="2.48.0"))
            await until(lambda: "Ray 2.60.0 here does not fit Ray 2.48.0" in machine.status.message)
            assert bench.program.calls == []


async def test_a_head_that_cannot_be_reached_is_said_at_once(bench: Bench) -> None:
    async with bench.daemon() as machine:
        machine.told.set(head_at(f"127.0.0.1:{free_ports(1)[0]}"))
        await until(lambda: "cannot be reached from here: --ray-port" in machine.status.message)
        assert bench.program.calls == []


async def test_a_start_that_fails_is_told_in_our_words_and_tried_again(bench: Bench) -> None:
    bench.program.fail("RuntimeError: Failed to connect to GCS.\nray.exceptions.AuthenticationError: no")
    async with bench.daemon() as machine:
        machine.leads.set(True)
        await until(lambda: "refused this machine's token" in machine.status.message)
        bench.program.mend()
        await machine.until_up(print)
        bench.ends = True
