"""Gangs whose members start together, with processes that stand for vLLM's; and followers that nobody speaks to."""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path

import pytest
import trio

from gpustack.domain.artifact import ModelSource, SourceKind
from gpustack.domain.instance import ModelInstance, Placement, Subordinate, status_of
from gpustack.domain.lifecycle import InstanceState as S
from gpustack.domain.model import Model
from gpustack.domain.worker import EngineBuild, WorkerStatus
from gpustack.worker import follower, supervisor
from tests.child import ROOT
from tests.nursery.programs import is_running, until_gone
from tests.worker.conftest import Start
from tests.worker.daemon import Daemon, instance_of, utc_now
from tests.worker.server import FakeServer


@pytest.fixture
def build(tmp_path: Path) -> EngineBuild:
    program = tmp_path / "vllm"
    program.write_text(
        f'#!/bin/sh\nexec env PYTHONPATH={ROOT} {sys.executable} -m tests.fakes.vllm_program "$@"\n'
    )
    program.chmod(0o755)
    return EngineBuild(
        engine="vllm", version="0.32.0", origin="vllm on PATH", path=str(program), drives=("cuda",)
    )


def model(folder: Path, **env: str) -> Model:
    (folder / "m").mkdir(exist_ok=True)
    (folder / "m/config.json").write_text("{}")
    (folder / "m/model.safetensors").write_bytes(b"")
    source = ModelSource(kind=SourceKind.LOCAL_PATH, local_path=str(folder / "m"))
    return Model(id=1, name="m", source=source, backend="vllm", categories=("llm",), env=env)


def gang(of: Model) -> ModelInstance:
    """Both members on the one worker there is."""
    return instance_of(of, placement=Placement(worker_id=1, subordinates=(Subordinate(worker_id=1),)))


async def started(server: FakeServer, start: Start, folder: Path, build: EngineBuild, **env: str) -> Daemon:
    server.put(made := model(folder, **env))
    server.put(gang(made))
    worker = await start(status=WorkerStatus(engines=(build,)))
    await server.until_state(S.RUNNING)
    await server.until(lambda: status_of(server.instance(), 1).state is S.RUNNING)
    return worker


def command_of(pid: int | None) -> list[str]:
    return Path(f"/proc/{pid}/cmdline").read_text().split("\0")


async def test_the_follower_starts_with_the_main_member_and_joins_it_at_its_port(
    server: FakeServer, start: Start, tmp_path: Path, build: EngineBuild
) -> None:
    worker = await started(server, start, tmp_path, build)
    record = server.instance()
    head, joined = command_of(record.pid), command_of(status_of(record, 1).pid)
    assert len(record.ports) == 2
    for command, rank in ((head, "0"), (joined, "1")):
        assert command[command.index("--node-rank") + 1] == rank
        assert command[command.index("--master-port") + 1] == str(record.ports[1])
        assert command[command.index("--master-addr") + 1] == "127.0.0.1"
    assert "--headless" in joined and "--headless" not in head
    states = [r.state for _, r in server.reports if r.member == 1]
    assert states.index(S.STARTING) < states.index(S.RUNNING)
    assert worker.ports.held == {record.port}, "nothing is forwarded to the port of torch's store"
    assert not server.refused


async def test_a_head_that_ends_with_code_0_when_it_served_has_failed(
    server: FakeServer, start: Start, tmp_path: Path, build: EngineBuild
) -> None:
    """As vLLM does at the first request after its follower died."""
    worker = await started(server, start, tmp_path, build)
    before = server.instance()
    await worker.through(
        before.port or 0, "/break", method="POST", body=b"{}", content_type="application/json"
    )
    await server.until(lambda: server.instance().attempt == 2 and server.instance().state is S.RUNNING)
    errors = [r.state_message or "" for _, r in server.reports if r.state is S.ERROR and not r.member]
    assert "exited with code 0" in errors[0]
    await until_gone(status_of(before, 1).pid or 0)
    assert server.instance().ports[1] != before.ports[1]


async def test_a_head_does_not_wait_for_a_follower_that_failed(
    server: FakeServer, start: Start, tmp_path: Path, build: EngineBuild
) -> None:
    """Left alone, vLLM's head waits for twenty minutes and more."""
    server.put(made := model(tmp_path, VLLM_STUB_FAILS="follower"))
    server.put(gang(made))
    await start(status=WorkerStatus(engines=(build,)))
    failed = await server.until_state(S.ERROR)
    assert failed.state_message.startswith("member 1 on worker 1: The engine exited with code 1")
    assert "Gloo connectFullMesh failed" in failed.state_message


async def test_a_head_without_its_follower_is_not_left_the_time_to_finish_requests(
    server: FakeServer, start: Start, tmp_path: Path, build: EngineBuild
) -> None:
    """It cannot: its clients would be told seconds later."""
    await started(server, start, tmp_path, build, VLLM_STUB_DRAINS=str(tmp_path))
    before = server.instance()
    os.kill(status_of(before, 1).pid or 0, signal.SIGKILL)
    await until_gone(before.pid or 0)
    assert not (tmp_path / "drained").exists()


async def test_a_head_that_is_being_ended_is_not_said_to_run_where_it_is_placed_anew(
    server: FakeServer, start: Start, tmp_path: Path, build: EngineBuild, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A machine was lost: the instance was unreachable, and gets another follower while its old head still ends."""
    monkeypatch.setattr(supervisor, "_SETTLES_WITHIN", 1.0)
    worker = await started(server, start, tmp_path, build, VLLM_STUB_DRAINS=str(tmp_path))
    before = server.instance()
    (head,) = (runner for key, runner in worker.supervisor._runners.items() if key == (1, 0))
    server.change(state=S.UNREACHABLE)
    await server.until(lambda: head.settling)
    anew = Placement(worker_id=1, subordinates=(Subordinate(worker_id=1, worker_name="another"),))
    told = len(server.reports)
    server.change(state=S.SCHEDULED, placement=anew, pid=None, ports=(), members=())
    await server.until(lambda: server.instance().state is S.RUNNING and server.instance().pid is not None)
    assert before.pid not in {report.pid for _, report in server.reports[told:]}
    assert server.instance().pid != before.pid


async def test_a_head_that_is_not_wanted_any_more_finishes_its_requests(
    server: FakeServer, start: Start, tmp_path: Path, build: EngineBuild
) -> None:
    await started(server, start, tmp_path, build, VLLM_STUB_DRAINS=str(tmp_path))
    before = server.instance()
    server.change(deleted_at=utc_now())
    await until_gone(before.pid or 0)
    assert (tmp_path / "drained").exists()


async def test_a_follower_that_nobody_speaks_to_ends_by_itself(
    server: FakeServer, start: Start, tmp_path: Path, build: EngineBuild, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its server is away, and the worker of its main member, which it reached before, is not to be reached any more."""
    reached = True

    async def connects(host: str, port: int) -> bool:
        await trio.lowlevel.checkpoint()
        return reached

    monkeypatch.setattr(follower, "connects", connects)
    monkeypatch.setattr(follower, "ALONE_FOR", 1.0)
    monkeypatch.setattr(follower, "_LOOK_FOR_MAIN_EVERY", 0.05)
    await started(server, start, tmp_path, build)
    pid = status_of(server.instance(), 1).pid or 0
    await server.stop()
    await trio.sleep(1.5)
    assert is_running(pid), "the worker of its main member is there"
    reached = False
    await until_gone(pid)


async def test_the_silence_of_a_server_alone_ends_no_follower(
    server: FakeServer, start: Start, tmp_path: Path, build: EngineBuild, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The worker of its main member may listen at another port, so that it was never reached."""

    async def connects(host: str, port: int) -> bool:
        await trio.lowlevel.checkpoint()
        return False

    monkeypatch.setattr(follower, "connects", connects)
    monkeypatch.setattr(follower, "ALONE_FOR", 0.5)
    monkeypatch.setattr(follower, "_LOOK_FOR_MAIN_EVERY", 0.05)
    await started(server, start, tmp_path, build)
    pid = status_of(server.instance(), 1).pid or 0
    await server.stop()
    await trio.sleep(1.5)
    assert is_running(pid)
    os.kill(pid, signal.SIGKILL)
    await until_gone(pid)
