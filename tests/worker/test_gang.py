"""Gangs, with real processes: members of one attempt start in order, fail as a whole, and outlive their daemon."""

from __future__ import annotations

import os
import signal
import socket
from pathlib import Path

import attrs
import pytest

from gpustack.domain.artifact import ModelSource, SourceKind
from gpustack.domain.instance import Claim, ModelInstance, Placement, Subordinate, status_of
from gpustack.domain.lifecycle import InstanceState as S
from gpustack.domain.model import Model
from gpustack.domain.worker import EngineBuild, WorkerStatus
from gpustack.worker.ports import PortLeases
from tests.fakes import llama_rpc
from tests.nursery.programs import is_running, until_gone
from tests.ports import free_ports
from tests.worker.conftest import Start
from tests.worker.daemon import Daemon, instance_of, utc_now
from tests.worker.server import FakeServer

SPLIT = Claim(offload_layers=3, total_layers=3, tensor_split=(1, 1, 1))


def script(path: Path, command: str) -> str:
    path.write_text(f"#!/bin/sh\n{command}\n")
    path.chmod(0o755)
    return str(path)


def command_of(pid: int) -> list[str]:
    return Path(f"/proc/{pid}/cmdline").read_text().split("\0")


@pytest.fixture
def programs(tmp_path: Path) -> EngineBuild:
    """A ``llama-server`` with its RPC server, both made small."""
    program = llama_rpc.install(tmp_path / "bin")
    return EngineBuild(
        engine="llama.cpp",
        version="1",
        origin="llama-server on PATH",
        path=str(program),
        rpc=True,
        rpc_server=str(program.with_name("ggml-rpc-server")),
    )


@pytest.fixture
def model(tmp_path: Path) -> Model:
    file = tmp_path / "m.gguf"
    file.write_bytes(b"GGUF")
    return Model(
        id=1,
        name="m",
        source=ModelSource(kind=SourceKind.LOCAL_PATH, local_path=str(file)),
        categories=("llm",),
    )


def gang(model: Model, key: int = 1, **fields: object) -> ModelInstance:
    """Three members, all on the one worker there is."""
    place = Placement(
        worker_id=1, claim=SPLIT, subordinates=(Subordinate(worker_id=1), Subordinate(worker_id=1))
    )
    return instance_of(model, key, placement=place, **fields)


def told(server: FakeServer, member: int) -> list[S]:
    """The states that a follower reported, in order."""
    states: list[S] = []
    for _, report in server.reports:
        if report.member == member and report.state is not None and states[-1:] != [report.state]:
            states.append(report.state)
    return states


def pids(server: FakeServer) -> tuple[int, int, int]:
    """Of the main member and both followers."""
    record = server.instance()
    found = (record.pid, *(status_of(record, member).pid for member in (1, 2)))
    assert None not in found
    return found  # type: ignore[return-value]


async def started(server: FakeServer, start: Start, model: Model, programs: EngineBuild) -> Daemon:
    server.put(model)
    server.put(gang(model))
    worker = await start(status=WorkerStatus(engines=(programs,)))
    await server.until_state(S.RUNNING)
    return worker


async def test_the_main_member_starts_when_its_followers_listen_and_is_told_where(
    server: FakeServer, start: Start, model: Model, programs: EngineBuild
) -> None:
    worker = await started(server, start, model, programs)
    record = server.instance()
    assert (record.attempt, record.address) == (1, "127.0.0.1")
    followers = [status_of(record, member) for member in (1, 2)]
    assert [follower.state for follower in followers] == [S.RUNNING, S.RUNNING]
    assert told(server, 1) == [S.INITIALIZING, S.STARTING, S.RUNNING]
    where = [f"127.0.0.1:{follower.ports[0]}" for follower in followers]
    command = command_of(pids(server)[0])
    assert command[command.index("--rpc") + 1] == ",".join(where)
    assert all(
        port in range(worker.rpc_ports.first, worker.rpc_ports.last + 1)
        for f in followers
        for port in f.ports
    )
    assert not server.refused
    status, body = await worker.through(record.port or 0, "/v1/models")
    assert (status, b'"peers": 2' in body) == (200, True)


async def test_requests_are_forwarded_to_the_main_member_only(
    server: FakeServer, start: Start, model: Model, programs: EngineBuild
) -> None:
    worker = await started(server, start, model, programs)
    assert worker.ports.held == {server.instance().port}
    inner = status_of(server.instance(), 1).ports[0]
    assert (await worker.through(inner))[0] == 503


@pytest.mark.parametrize("victim", [0, 1, 2])
async def test_whoever_dies_the_whole_is_started_again_with_other_ports(
    server: FakeServer, start: Start, model: Model, programs: EngineBuild, victim: int
) -> None:
    await started(server, start, model, programs)
    before, ports = pids(server), [status_of(server.instance(), m).ports for m in (1, 2)]
    os.kill(before[victim], signal.SIGKILL)
    await server.until(lambda: server.instance().attempt == 2 and server.instance().state is S.RUNNING)
    for pid in before:
        await until_gone(pid)
    after = pids(server)
    assert not set(before) & set(after)
    assert ports != [status_of(server.instance(), m).ports for m in (1, 2)]
    mains = [r.state_message or "" for _, r in server.reports if r.state is S.ERROR and not r.member]
    assert len(set(mains)) == 1, (
        "it is told once before its remains are ended, and once with the time of the restart"
    )
    assert "SIGKILL" in mains[0]
    assert mains[0].startswith(f"member {victim} on worker 1: ") == bool(victim)
    assert server.instance().restart_count == 1


async def test_a_follower_that_exits_with_code_0_has_failed_and_says_why(
    server: FakeServer, start: Start, model: Model, programs: EngineBuild, tmp_path: Path
) -> None:
    """As the real RPC server does when its port is taken after it was leased."""
    taken = attrs.evolve(
        programs, rpc_server=script(tmp_path / "taken", "echo 'Failed to create server socket'")
    )
    server.put(model)
    server.put(gang(model))
    await start(status=WorkerStatus(engines=(taken,)))
    failed = await server.until_state(S.ERROR)
    assert "exited with code 0 before it was ready" in failed.state_message
    assert "Failed to create server socket" in failed.state_message


@pytest.mark.parametrize(
    ("lost", "sentence"),
    [
        (
            {"rpc_server": None},
            " on worker 1: This worker lends no devices any more: it was started with",
        ),
        ({"rpc": False}, "The llama.cpp of this worker cannot use devices of other workers any more"),
    ],
)
async def test_a_worker_that_lends_no_more_or_cannot_lead_any_more_says_so(
    lost: dict[str, object],
    sentence: str,
    server: FakeServer,
    start: Start,
    model: Model,
    programs: EngineBuild,
) -> None:
    """Its daemon was started anew, with ``--disable-rpc-servers`` or another llama.cpp, after the gang was placed."""
    server.put(model)
    server.put(gang(model))
    await start(status=WorkerStatus(engines=(attrs.evolve(programs, **lost),)))
    failed = await server.until_state(S.ERROR)
    assert sentence in failed.state_message
    assert "another place is looked for" in failed.state_message


async def test_who_is_waited_for_is_said(
    server: FakeServer, start: Start, model: Model, programs: EngineBuild
) -> None:
    place = Placement(worker_id=1, claim=SPLIT, subordinates=(Subordinate(worker_id=2, worker_name="gpu-b"),))
    server.put(model)
    server.put(instance_of(model, placement=place))
    await start(status=WorkerStatus(engines=(programs,)))
    await server.until(lambda: server.instance().state_message == "Waiting for member 1 on worker gpu-b")


async def test_what_a_follower_waits_for_is_said_of_the_whole(
    server: FakeServer, start: Start, model: Model, programs: EngineBuild
) -> None:
    """Users look at the instance: without it they would learn only that something waits for something."""
    (port,) = free_ports(1)
    with socket.create_server(("", port)) as stranger:
        server.put(model)
        server.put(gang(model))
        leases = PortLeases(port, port, "--rpc-server-port-range")
        await start(status=WorkerStatus(engines=(programs,)), rpc_ports=leases)
        waits = f"Waiting for a port: No port of {port}-{port} is free"
        await server.until(lambda: waits in server.instance().state_message)
        assert server.instance().state_message.startswith("Waiting for member ")
        stranger.close()
        # One of its two followers has it then, and keeps the other waiting.
        await server.until(lambda: "1 held by engines here" in server.instance().state_message)


async def test_followers_end_with_the_deployment_and_every_member_says_that_it_is_gone(
    server: FakeServer, start: Start, model: Model, programs: EngineBuild
) -> None:
    worker = await started(server, start, model, programs)
    before = pids(server)
    server.change(deleted_at=utc_now())
    for pid in before:
        await until_gone(pid)
    await server.until(lambda: {r.member for _, r in server.reports if r.gone} == {0, 1, 2})
    assert not worker.ports.held
    assert not worker.rpc_ports.held


async def test_a_gang_outlives_a_crash_of_its_daemon_and_is_adopted_whole(
    server: FakeServer, start: Start, start_next: Start, model: Model, programs: EngineBuild
) -> None:
    worker = await started(server, start, model, programs)
    before = pids(server)
    await worker.crash()
    assert all(is_running(pid) for pid in before)
    following = await start_next(status=WorkerStatus(engines=(programs,)))
    await server.until(lambda: status_of(server.instance(), 2).state is S.RUNNING)
    assert (server.instance().state, server.instance().attempt, pids(server)) == (S.RUNNING, 1, before)
    assert following.ports.held == {server.instance().port}
    os.kill(before[1], signal.SIGKILL)
    await server.until(lambda: server.instance().attempt == 2 and server.instance().state is S.RUNNING)


async def test_a_follower_whose_attempt_ended_while_its_daemon_was_away_is_ended(
    server: FakeServer, start: Start, start_next: Start, model: Model, programs: EngineBuild
) -> None:
    worker = await started(server, start, model, programs)
    before = pids(server)
    await worker.crash()
    os.kill(before[0], signal.SIGKILL)
    await start_next(status=WorkerStatus(engines=(programs,)))
    await server.until(lambda: server.instance().attempt == 2 and server.instance().state is S.RUNNING)
    for pid in before:
        await until_gone(pid)


async def test_a_follower_that_died_while_its_daemon_was_away_fails_the_whole(
    server: FakeServer, start: Start, start_next: Start, model: Model, programs: EngineBuild
) -> None:
    """Another process in its place would look well, and the main process would never find it."""
    worker = await started(server, start, model, programs)
    before = pids(server)
    await worker.crash()
    os.kill(before[1], signal.SIGKILL)
    await start_next(status=WorkerStatus(engines=(programs,)))
    await server.until(lambda: server.instance().attempt == 2 and server.instance().state is S.RUNNING)
    mains = [r.state_message or "" for _, r in server.reports if r.state is S.ERROR and not r.member]
    assert mains[0].startswith("member 1 on worker 1: Its process ended while its daemon was away")
    for pid in before:
        await until_gone(pid)


async def test_two_gangs_on_the_same_workers_never_meet(
    server: FakeServer, start: Start, model: Model, programs: EngineBuild
) -> None:
    worker = await started(server, start, model, programs)
    server.put(gang(model, 2))
    await server.until_state(S.RUNNING, 2)
    first, second = server.instance(1), server.instance(2)
    ports = [port for one in (first, second) for m in (1, 2) for port in status_of(one, m).ports]
    assert len({*ports, first.port, second.port}) == 6
    for instance in (first, second):
        assert (await worker.through(instance.port or 0, "/v1/models"))[0] == 200
    os.kill(status_of(second, 1).pid or 0, signal.SIGKILL)
    await server.until(lambda: server.instance(2).attempt == 2 and server.instance(2).state is S.RUNNING)
    assert (server.instance(1).attempt, pids(server)[0]) == (1, first.pid)


async def test_a_plain_stop_ends_all_members(
    server: FakeServer, start: Start, model: Model, programs: EngineBuild
) -> None:
    worker = await started(server, start, model, programs)
    before = pids(server)
    await worker.stop()
    for pid in before:
        await until_gone(pid)
    assert not list((worker.folder / "run").glob("*.json"))


async def test_each_member_has_a_log_of_its_own(
    server: FakeServer, start: Start, model: Model, programs: EngineBuild
) -> None:
    worker = await started(server, start, model, programs)
    for member in (0, 1, 2):
        assert (await worker.ask(f"/serveLogs/1?member={member}"))[0] == 200
    assert (await worker.ask("/serveLogs/1?member=3"))[0] == 404
