"""A fault in any step of any loop of a worker, for one row, ends nothing: others are served, it is tried again."""

from __future__ import annotations

import logging
import os
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any

import attrs
import pytest
import trio

from gpustack.artifacts.cache import Cache
from gpustack.artifacts.tools import Build
from gpustack.domain.artifact import FileState, ModelFile, ModelSource, SourceKind
from gpustack.domain.assignment import AssignmentEvent, AssignmentLine, AssignmentState, applied
from gpustack.domain.document import encode
from gpustack.domain.lifecycle import InstanceState as S
from gpustack.domain.report import InstanceReport
from gpustack.remote.server_client import ServerClient
from gpustack.worker import (
    assignment_watcher,
    instance,
    log_retention,
    membership,
    report,
    runner,
    supervisor,
    tool_fetcher,
)
from gpustack.worker.membership import Membership
from gpustack.worker.model_file import ModelFiles
from gpustack.worker.report import InstanceReporter
from gpustack.worker.runner import InstanceRunner
from gpustack.worker.supervisor import InstanceSupervisor
from gpustack.worker.tool_fetcher import ToolFetcher
from tests.fakes.hub import Hub
from tests.nursery.programs import is_running
from tests.stumble import Stumble, services
from tests.worker import server as fake_server
from tests.worker.conftest import Start
from tests.worker.daemon import Daemon, custom_model, instance_of
from tests.worker.server import PATIENCE, FakeServer
from tests.worker.test_tool_fetcher import fetch_of

LOOPS: dict[str, list[Any]] = {
    "Membership": [
        partial(Stumble, ServerClient, "join"),
        partial(Stumble, membership, "save_name"),
        partial(Stumble, membership, "save_credential"),
    ],
    "Heartbeat": [
        partial(Stumble, ServerClient, "heartbeat"),
        partial(Stumble, Membership, "learn"),
        partial(Stumble, Membership, "renew"),
    ],
    "StatusReporter": [partial(Stumble, Daemon, "_measure"), partial(Stumble, ServerClient, "put_status")],
    "AssignmentWatcher": [
        partial(
            Stumble,
            assignment_watcher,
            "applied",
            lambda state, line, kept: (line.kind, line.id) == ("instances", 1),
        ),
        partial(Stumble, ServerClient, "assignments"),
    ],
    "ReportQueue": [
        partial(Stumble, ServerClient, "report_instance", lambda client, key, report: key == 1),
        partial(Stumble, ServerClient, "report_instance", lambda client, key, report: key == 3),
        partial(
            Stumble,
            ServerClient,
            "ensure_file",
            lambda client, worker, source, *rest, **more: source == _source("one") and not more,
        ),
    ],
    "ModelFiles": [
        partial(Stumble, Cache, "ensure", lambda cache, source, **more: source == _source("one"), 1),
        partial(Stumble, ModelFiles, "_start_task", lambda files, file, nursery: file.id == 1),
        partial(Stumble, Cache, "drop_unfinished", lambda cache, source, **more: source == _source("three")),
    ],
    "InstanceSupervisor": [
        partial(
            Stumble, InstanceSupervisor, "_compare_one", lambda self, key, record, nursery: key == (1, 0)
        ),
        partial(Stumble, runner, "run_instance", lambda run, *rest: run.instance.id == 1),
        partial(Stumble, InstanceRunner, "_update_model", lambda self: self.instance.id == 1),
        partial(Stumble, InstanceRunner, "_finish_former_back_off", lambda self: self.instance.id == 1),
        partial(Stumble, supervisor, "engine_on_record", lambda key, *rest: key == 3),
    ],
    "LogRetention": [
        partial(Stumble, log_retention, "_removed", lambda logs, before: logs[0].name == "91.log", 1)
    ],
    "ToolFetcher": [],
    "RayNode": [],
    "EngineEnvironments": [],
}
"""Each loop with its steps for one row. One without, and steps after another failure, have tests of their own below."""
CASES = [made for cases in LOOPS.values() for made in cases]


def test_no_loop_of_a_worker_is_forgotten() -> None:
    assert services("worker") == set(LOOPS)


def _source(name: str) -> ModelSource:
    return ModelSource(
        kind=SourceKind.HUGGING_FACE, huggingface_repo_id=f"me/{name}", huggingface_filename=f"{name}.gguf"
    )


def _file(key: int, name: str, **fields: Any) -> ModelFile:
    source = _source(name)
    return ModelFile(id=key, worker_id=1, source=source, source_index=source.index, **fields)


def _fill(server: FakeServer, hub: Hub, folder: Path) -> None:
    """Two instances to run and two that are to go; two files to fetch and two that are to go; logs of two that are
    gone."""
    for name in ("one", "two", "three", "four"):
        hub.add(f"me/{name}", {f"{name}.gguf": b"GGUF" + os.urandom(2000)})
    server.put(model := custom_model())
    now = datetime.now(UTC)
    for key in (1, 2):
        server.put(instance_of(model, key))
        server.put(instance_of(model, key + 2, deleted_at=now))
        server.put(_file(key, ("one", "two")[key - 1]))
        server.put(_file(key + 2, ("three", "four")[key - 1], deleted_at=now, cleanup_on_delete=True))
    logs = folder / "data" / "log" / "serve"
    logs.mkdir(parents=True)
    for name in ("91.log", "92.log"):
        (logs / name).write_text("old")
        os.utime(logs / name, (1, 1))


@pytest.mark.parametrize("make", CASES, ids=lambda make: str(make()))
async def test_a_step_that_fails_for_one_row_harms_no_other_and_is_taken_again(
    make: Any,
    server: FakeServer,
    start: Start,
    hub: Hub,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    stumble: Stumble = make()
    stumble.put(monkeypatch)
    server.heartbeat_interval = 0.2
    _fill(server, hub, tmp_path)
    if stumble.step == "_finish_former_back_off":
        server.change(1, state=S.ERROR)
    with caplog.at_level(logging.ERROR):
        await start(endpoint=hub.url)
        await server.until_state(S.RUNNING, 2)
        await server.until(lambda: server.file(2).state is FileState.READY)
        await server.until(lambda: 4 not in server.assigned.instances and 4 not in server.assigned.files)
        await server.until(lambda: server.beats > 2 and bool(server.statuses))
        assert not (tmp_path / "data/log/serve/92.log").exists()
        assert stumble.fallen > 0
        await server.until_state(S.RUNNING, 1)
        await server.until(lambda: 3 not in server.assigned.instances and 3 not in server.assigned.files)
        aside = [r for r in caplog.records if r.getMessage().startswith("Set a row aside")]
        assert len(aside) == 1, [r.getMessage() for r in caplog.records]
        assert aside[0].exc_info is not None
    assert not [r for r in caplog.records if r.name.endswith("supervise")]


async def test_the_record_of_an_instance_shows_a_fault_that_its_worker_met(
    server: FakeServer, start: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    server.put(model := custom_model())
    server.put(instance_of(model))
    Stumble(runner, "run_instance").put(monkeypatch)
    await start()
    failed = await server.until_state(S.ERROR)
    assert "fault that nobody foresaw (Unforeseen" in failed.state_message
    assert "stumbled" not in failed.state_message, "what the exception says is in the log alone"
    running = await server.until_state(S.RUNNING)
    assert (running.state_message, running.restart_count) == ("", 2)


async def test_saying_that_an_instance_restarts_may_fail_too(
    server: FakeServer, start: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    server.put(model := custom_model())
    server.put(instance_of(model))
    first, second = Stumble(runner, "run_instance"), Stumble(InstanceRunner, "_report_restart", times=1)
    first.put(monkeypatch)
    second.put(monkeypatch)
    await start()
    await server.until_state(S.RUNNING)
    assert (first.fallen, second.fallen) == (2, 1)


async def test_an_engine_that_runs_outlives_a_fault_of_who_watches_it(
    server: FakeServer, start: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is taken up again as if a former daemon had left it."""
    server.put(model := custom_model())
    server.put(instance_of(model))
    stumble = Stumble(instance, "watch_engine", times=1)
    stumble.put(monkeypatch)
    await start()
    await server.until(lambda: bool(stumble.fallen) and server.instance().state is S.ERROR)
    (before,) = {report.pid for _, report in server.reports if report.pid}
    again = await server.until_state(S.RUNNING)
    assert again.pid == before


async def test_a_report_that_cannot_be_sent_at_all_is_dropped_and_the_next_arrive(
    server: FakeServer, start: Start, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    server.put(model := custom_model())
    for key in (1, 2):
        server.put(instance_of(model, key))
    worker = await start()
    await server.until_state(S.RUNNING, 1)
    await server.until_state(S.RUNNING, 2)
    monkeypatch.setattr(report, "_FAULTS", 2)
    worker.reports.add_instance(1, InstanceReport(restart_count=1 << 70))  # no JSON holds it
    worker.reports.add_instance(2, InstanceReport(state_message="tea"))
    await server.until(lambda: server.instance(2).state_message == "tea")
    worker.reports.add_instance(1, InstanceReport(state=S.ERROR, state_message="over"))
    await server.until(lambda: server.instance(1).state_message == "over")
    assert caplog.text.count("A report cannot be sent and is dropped") == 1


async def test_a_record_that_this_worker_cannot_read_keeps_its_engine_and_the_others_come(
    server: FakeServer, start: Start, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """As one of a newer server, with a word that this program does not know."""
    server.put(model := custom_model())
    server.put(instance_of(model))
    await start()
    running = await server.until_state(S.RUNNING)

    def newer(line: AssignmentLine) -> bytes:
        raw = encode(line)
        return raw.replace(b'"running"', b'"hovering"') if line.id == 1 and line.kind == "instances" else raw

    monkeypatch.setattr(fake_server, "encode", newer)
    server.change(state_message="seen")
    server.put(instance_of(model, 2))
    await server.until_state(S.RUNNING, 2)
    assert is_running(running.pid or 0)
    assert server.instance(1).state is S.RUNNING
    told = [record for record in caplog.records if "cannot be read here" in record.getMessage()]
    assert len(told) == 1


def test_a_line_without_its_record_changes_nothing_of_what_was_known() -> None:
    known = AssignmentState(instances={1: instance_of(custom_model())})
    line = AssignmentLine(word=AssignmentEvent.PUT, kind="instances", id=1)
    assert applied(AssignmentState(), line, known) == known
    assert applied(AssignmentState(), line) == AssignmentState()
    assert applied(known, attrs.evolve(line, word=AssignmentEvent.GONE), known) == AssignmentState()


async def test_repeating_a_report_that_the_server_has_lost_may_fail(
    server: FakeServer, start: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    stumble = Stumble(InstanceReporter, "repeat", times=1)
    stumble.put(monkeypatch)
    server.put(model := custom_model())
    server.put(instance_of(model))
    await start()
    await server.until_state(S.RUNNING)
    server.change(state=S.UNREACHABLE)
    await server.until(lambda: bool(stumble.fallen))
    server.change(state_message="anything")
    await server.until_state(S.RUNNING)


async def test_tools_are_fetched_after_a_fault_in_fetching(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, nursery: trio.Nursery
) -> None:
    came = trio.Event()

    async def bring(_: ToolFetcher) -> Build:
        await trio.lowlevel.checkpoint()
        came.set()
        return Build(tag="b1", name="x.tar.gz", origin="a mirror")

    monkeypatch.setattr(tool_fetcher, "_FIRST_WAIT", 0.01)
    monkeypatch.setattr(ToolFetcher, "_fetch", bring)
    stumble = Stumble(ToolFetcher, "_fetch")
    stumble.put(monkeypatch)
    await nursery.start(lambda task_status: fetch_of(tmp_path, "http://x").run(task_status=task_status))
    with trio.fail_after(PATIENCE):
        await came.wait()
    assert stumble.fallen == 2
