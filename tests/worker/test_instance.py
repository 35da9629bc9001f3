"""The life of an instance, with real engine processes: from its assignment to its end."""

from __future__ import annotations

import json
import os
import shlex
import signal
import sys
from pathlib import Path

import attrs
import pytest
import trio

from gpustack.domain.artifact import FileState, ModelSource, SourceKind
from gpustack.domain.instance import Claim, ModelInstance, Placement
from gpustack.domain.lifecycle import InstanceState as S
from gpustack.domain.report import InstanceReport
from gpustack.worker.ports import PortLeases
from tests.child import ROOT
from tests.fakes.hub import Hub
from tests.nursery.programs import is_running, until_gone
from tests.worker.conftest import Start
from tests.worker.daemon import custom_model, engine_command, instance_of, utc_now
from tests.worker.server import PATIENCE, FakeServer


def pid_of(record: ModelInstance) -> int:
    assert record.pid is not None
    return record.pid


def port_of(record: ModelInstance) -> int:
    assert record.port is not None
    return record.port


async def test_an_assigned_instance_starts_in_order_and_answers_through_the_workers_port(
    server: FakeServer, start: Start
) -> None:
    server.put(model := custom_model())
    server.put(instance_of(model, placement=Placement(worker_id=1, note="on the CPU, for there is no GPU")))
    worker = await start()
    running = await server.until_state(S.RUNNING)
    assert server.states() == [S.INITIALIZING, S.STARTING, S.RUNNING]
    assert not server.refused
    assert running.state_message == "on the CPU, for there is no GPU"
    assert worker.ports.held == {port_of(running)}
    status, body = await worker.through(port_of(running))
    assert (status, b'"fake"' in body) == (200, True)


async def test_files_that_are_missing_are_fetched_first_and_their_record_follows(
    server: FakeServer, start: Start, hub: Hub
) -> None:
    hub.add("me/model", {"tiny.gguf": b"GGUF" + os.urandom(200_000)})
    source = ModelSource(
        kind=SourceKind.HUGGING_FACE, huggingface_repo_id="me/model", huggingface_filename="tiny.gguf"
    )
    model = custom_model("--name", "{model_path}", source=source)
    server.put(model)
    server.put(instance_of(model))
    await start(endpoint=hub.url)
    running = await server.until_state(S.RUNNING)
    assert server.states() == [S.INITIALIZING, S.DOWNLOADING, S.STARTING, S.RUNNING]
    assert running.resolved_path is not None
    assert running.resolved_path.encode() in command_of(pid_of(running))
    await server.until(lambda: server.file().state is FileState.READY)
    assert (server.file().size, server.file().download_progress) == (200_004, 100.0)
    assert server.file().resolved_paths == (running.resolved_path,)


async def test_a_model_that_cannot_be_found_is_an_error_with_its_sentence(
    server: FakeServer, start: Start
) -> None:
    source = ModelSource(kind=SourceKind.LOCAL_PATH, local_path="/nowhere/m.gguf")
    server.put(model := custom_model("--name", "{model_path}", source=source))
    server.put(instance_of(model))
    await start()
    failed = await server.until_state(S.ERROR)
    assert "/nowhere/m.gguf" in failed.state_message
    await server.until(lambda: server.file().state is FileState.ERROR)


async def test_a_tiny_model_is_served_by_llama_cpp(
    server: FakeServer, start: Start, tiny_model: Path
) -> None:
    source = ModelSource(kind=SourceKind.LOCAL_PATH, local_path=str(tiny_model))
    model = attrs.evolve(
        custom_model(), source=source, backend=None, command=None, health_path=None, env={}, name="tiny"
    )
    server.put(model)
    server.put(instance_of(model))
    worker = await start()
    running = await server.until_state(S.RUNNING)
    asked = {"model": "tiny", "messages": [{"role": "user", "content": "Hello"}]}
    status, body = await worker.through(
        port_of(running),
        "/v1/chat/completions",
        method="POST",
        body=json.dumps(asked).encode(),
        content_type="application/json",
    )
    assert status == 200
    assert "tiny model" in json.loads(body)["choices"][0]["message"]["content"]
    await server.until(lambda: server.instance(1).memory is not None)
    measured = server.instance(1).memory
    assert measured is not None and measured.host is not None
    assert (measured.build, measured.devices, measured.host > 1 << 20) == ("1", None, True)


async def test_a_folder_tells_its_engine_by_the_file_in_it(
    server: FakeServer, start: Start, tiny_model: Path
) -> None:
    """Neither backend nor source name GGUF; the server knew from the header, the worker sees the file."""
    source = ModelSource(kind=SourceKind.LOCAL_PATH, local_path=str(tiny_model.parent))
    model = attrs.evolve(custom_model(), source=source, backend=None, command=None, health_path=None, env={})
    server.put(model)
    server.put(instance_of(model))
    await start()
    running = await server.until_state(S.RUNNING)
    assert b"gpustack.launchers.llama_cpp" in command_of(pid_of(running))


# --- failures


async def test_a_killed_engine_is_reported_and_comes_back(server: FakeServer, start: Start) -> None:
    server.put(model := custom_model())
    server.put(instance_of(model))
    await start()
    first = await server.until_state(S.RUNNING)
    os.kill(pid_of(first), signal.SIGKILL)
    await server.until(lambda: server.instance().restart_count == 1 and server.instance().state is S.RUNNING)
    errors = [report for _, report in server.reports if report.state is S.ERROR]
    assert [error.state_message.split(",")[0] for error in errors if error.state_message] == [
        "The engine was ended by SIGKILL"
    ]
    assert errors[0].next_retry_at is not None
    assert server.instance().last_restart_time is not None
    assert server.instance().pid != first.pid
    assert server.states()[2:] == [S.RUNNING, S.ERROR, S.INITIALIZING, S.STARTING, S.RUNNING]
    assert not server.refused


async def test_the_same_failure_again_and_again_is_one_line_in_the_log(
    server: FakeServer, start: Start, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO", "gpustack.worker")
    server.put(model := custom_model("--fail-to-start", "'no such tensor'"))
    server.put(instance_of(model))
    await start()
    await server.until(lambda: server.instance().restart_count >= 4)
    said = [record.getMessage() for record in caplog.records]
    assert sum("An instance failed" in line and "no such tensor" in line for line in said) == 1
    assert sum("Started an engine" in line for line in said) == 1


async def test_an_instance_that_serves_again_is_a_line_in_the_log(
    server: FakeServer, start: Start, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO", "gpustack.worker")
    server.put(model := custom_model())
    server.put(instance_of(model))
    await start()
    for count in (1, 2):
        os.kill(pid_of(await server.until_state(S.RUNNING)), signal.SIGKILL)
        await server.until(
            lambda count=count: (
                server.instance().restart_count == count and server.instance().state is S.RUNNING
            )
        )
    said = [record.getMessage() for record in caplog.records]
    assert sum("An instance failed" in line for line in said) == 2, "it had served meanwhile: that is news"
    assert sum("An instance serves again" in line for line in said) == 2


async def test_an_engine_that_cannot_start_is_quoted(server: FakeServer, start: Start) -> None:
    server.put(model := custom_model("--fail-to-start", "'no such tensor'"))
    server.put(instance_of(model))
    await start()
    failed = await server.until_state(S.ERROR)
    assert failed.state_message == "The engine exited with code 1 before it was ready: no such tensor"
    await server.until(lambda: server.instance().restart_count >= 2)


async def test_a_missing_program_is_named(server: FakeServer, start: Start) -> None:
    server.put(model := custom_model(command="no-such-engine --port {port}"))
    server.put(instance_of(model))
    worker = await start()
    failed = await server.until_state(S.ERROR)
    assert failed.state_message == "The engine cannot be started: there is no program no-such-engine"
    assert not worker.ports.held


async def test_an_engine_this_worker_has_not_is_named(server: FakeServer, start: Start) -> None:
    server.put(model := custom_model())
    server.put(instance_of(model))

    async def none() -> tuple[()]:
        await trio.lowlevel.checkpoint()
        return ()

    await start(builds=none)
    failed = await server.until_state(S.ERROR)
    assert failed.state_message == "This worker has no custom engine; run 'gpustack doctor' there"


async def test_what_is_wrong_with_a_deployment_is_said_and_breaks_nothing(
    server: FakeServer, start: Start
) -> None:
    server.put(model := custom_model(command="engine 'never closed --port {port}"))
    server.put(instance_of(model))
    await start()
    failed = await server.until_state(S.ERROR)
    assert "cannot be split into words" in failed.state_message


async def test_an_instance_that_is_not_to_be_restarted_waits_until_it_is(
    server: FakeServer, start: Start
) -> None:
    server.put(model := custom_model(restart_on_error=False))
    server.put(instance_of(model))
    await start()
    os.kill(pid_of(await server.until_state(S.RUNNING)), signal.SIGKILL)
    failed = await server.until_state(S.ERROR)
    assert failed.next_retry_at is None
    server.put(attrs.evolve(model, restart_on_error=True))
    await server.until_state(S.RUNNING)


async def test_a_back_off_that_a_former_daemon_began_is_waited_out(server: FakeServer, start: Start) -> None:
    server.put(model := custom_model())
    failed = instance_of(model, state=S.ERROR, restart_count=3, next_retry_at=utc_now())
    server.put(failed)
    await start()
    running = await server.until_state(S.RUNNING)
    assert (running.restart_count, server.states()) == (4, [S.INITIALIZING, S.STARTING, S.RUNNING])


async def test_without_a_free_port_the_instance_says_so_and_starts_when_one_is_given_back(
    server: FakeServer, start: Start, free_port: int
) -> None:
    server.put(model := custom_model())
    server.put(instance_of(model, 1))
    worker = await start(ports=PortLeases(free_port, free_port))
    await server.until_state(S.RUNNING, 1)
    server.put(instance_of(model, 2))
    await server.until(lambda: "Waiting for a port" in server.instance(2).state_message)
    assert server.instance(2).state_message == (
        f"Waiting for a port: No port of {free_port}-{free_port} is free (1 held by engines here); "
        "widen --service-port-range"
    )
    server.change(1, deleted_at=utc_now())
    running = await server.until_state(S.RUNNING, 2)
    assert (running.state_message, worker.ports.held) == ("", {free_port})
    assert running.restart_count == 0


# --- what is wanted changes


async def test_a_deleted_instance_ends_and_then_its_record_goes(server: FakeServer, start: Start) -> None:
    server.put(model := custom_model())
    server.put(instance_of(model))
    worker = await start()
    running = await server.until_state(S.RUNNING)
    server.change(deleted_at=utc_now())
    await server.until(lambda: not server.assigned.instances)
    assert not is_running(pid_of(running))
    assert not worker.ports.held
    assert not list(worker.context.state_dir.glob("*.json"))
    status, _ = await worker.through(port_of(running))
    assert status == 503


async def test_an_instance_deleted_while_it_waits_to_be_restarted_goes_at_once(
    server: FakeServer, start: Start
) -> None:
    server.put(model := custom_model(command="no-such-engine --port {port}", restart_on_error=False))
    server.put(instance_of(model))
    await start()
    await server.until_state(S.ERROR)
    server.change(deleted_at=utc_now())
    await server.until(lambda: not server.assigned.instances)


async def test_an_instance_is_reported_gone_whatever_other_reports_of_it_wait(
    server: FakeServer, start: Start
) -> None:
    """A report before it is refused, so nothing on the server changes that would make the worker look again."""
    server.put(model := custom_model())
    server.put(instance_of(model))
    worker = await start()
    await server.until_state(S.RUNNING)
    server.answers["/model-instances/1/report"] = 503
    worker.reports.add_instance(1, InstanceReport(state=S.DOWNLOADING))
    server.change(deleted_at=utc_now())
    await server.until(lambda: not worker.ports.held)
    server.answers.clear()
    await server.until(lambda: not server.assigned.instances)
    assert [report.state for _, report in server.refused] == [S.DOWNLOADING]


async def test_an_instance_that_was_taken_away_ends_without_a_report(
    server: FakeServer, start: Start
) -> None:
    """Its worker was thought lost and it runs elsewhere now: the record is not ours to speak of."""
    server.put(model := custom_model())
    server.put(instance_of(model))
    await start()
    running = await server.until_state(S.RUNNING)
    server.drop("instances", 1)
    with trio.fail_after(PATIENCE):
        await until_gone(pid_of(running))
    assert not [report for _, report in server.reports if report.gone]


async def test_an_instance_placed_anew_is_started_anew(server: FakeServer, start: Start) -> None:
    server.put(model := custom_model())
    server.put(instance_of(model))
    await start()
    first = await server.until_state(S.RUNNING)
    elsewhere = Placement(worker_id=1, gpu_indexes=(1,), claim=Claim(vram={1: 5}))
    server.change(state=S.SCHEDULED, placement=elsewhere)
    await server.until(lambda: server.instance().state is S.RUNNING and server.instance().pid != first.pid)
    assert not is_running(pid_of(first))
    assert not server.refused


async def test_a_replica_of_an_older_generation_restarts_as_what_it_was(
    server: FakeServer, start: Start
) -> None:
    server.put(model := custom_model("--name", "old"))
    server.put(instance_of(model))
    worker = await start()
    first = await server.until_state(S.RUNNING)
    server.put(attrs.evolve(model, generation=2, command=engine_command("--name", "new")))
    os.kill(pid_of(first), signal.SIGKILL)
    await server.until(lambda: server.instance().state is S.RUNNING and server.instance().pid != first.pid)
    _, body = await worker.through(port_of(server.instance()))
    assert b'"old"' in body


async def test_a_replica_of_an_older_generation_is_not_started_as_the_newer(
    server: FakeServer, start: Start
) -> None:
    server.put(model := custom_model(generation=2))
    server.put(instance_of(model, generation=1))
    await start()
    failed = await server.until_state(S.ERROR)
    assert "about to be replaced" in failed.state_message


async def test_a_record_that_goes_on_showing_another_state_is_told_again(
    server: FakeServer, start: Start
) -> None:
    server.put(model := custom_model())
    server.put(instance_of(model))
    await start()
    running = await server.until_state(S.RUNNING)
    server.change(state=S.UNREACHABLE)
    again = await server.until_state(S.RUNNING)
    assert again.pid == running.pid
    assert not server.refused


# --- what an engine gets


async def test_the_custom_command_and_its_environment_are_filled_in(server: FakeServer, start: Start) -> None:
    command = engine_command("--name", "'{served_name} on {host}'")
    server.put(model := custom_model(command=command, env={"PYTHONPATH": str(ROOT), "PORT": "{port}"}))
    server.put(instance_of(model))
    await start()
    running = await server.until_state(S.RUNNING)
    words = command_of(pid_of(running)).split(b"\0")
    assert b"m on 127.0.0.1" in words
    assert f"PORT={running.port}".encode() in environ_of(pid_of(running))


async def test_no_secret_of_the_daemon_reaches_an_engine(
    server: FakeServer, start: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("GPUSTACK_TOKEN", "HF_TOKEN", "GPUSTACK_DATABASE_URL", "NOTIFY_SOCKET", "VLLM_API_KEY"):
        monkeypatch.setenv(name, "do-not-tell")
    monkeypatch.setenv("CUDA_HOME", "/opt/cuda")
    server.put(model := custom_model())
    server.put(instance_of(model))
    await start()
    told = environ_of(pid_of(await server.until_state(S.RUNNING)))
    assert not [line for line in told if b"do-not-tell" in line]
    assert b"CUDA_HOME=/opt/cuda" in told
    assert b"cluster-token" not in command_of(pid_of(server.instance()))


def command_of(pid: int) -> bytes:
    return Path(f"/proc/{pid}/cmdline").read_bytes()


def environ_of(pid: int) -> list[bytes]:
    return Path(f"/proc/{pid}/environ").read_bytes().split(b"\0")


# --- stopping


PAIR = """
import pathlib, signal, sys, threading
from http.server import BaseHTTPRequestHandler, HTTPServer
port, own, other = int(sys.argv[1]), pathlib.Path(sys.argv[2]), pathlib.Path(sys.argv[3])
class Yes(BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200); self.send_header("content-length", "0"); self.end_headers()
def end(*_):
    own.touch()
    def both():
        while not other.exists(): threading.Event().wait(0.02)
        own.with_suffix(".well").touch()
        import os; os._exit(0)
    threading.Thread(target=both).start()
signal.signal(signal.SIGTERM, end)
HTTPServer(("127.0.0.1", port), Yes).serve_forever()
"""


async def test_a_plain_stop_ends_all_engines_at_the_same_time_and_says_so(
    server: FakeServer, start: Start, tmp_path: Path
) -> None:
    """Each engine ends only once the other was told to end: one after the other, the first would be killed."""
    program = tmp_path / "pair.py"
    program.write_text(PAIR)
    own, other = tmp_path / "one", tmp_path / "two"
    for key, (mine, its) in {1: (own, other), 2: (other, own)}.items():
        command = f"{sys.executable} {program} {{port}} {mine} {its}"
        server.put(model := custom_model(id=key, name=f"m{key}", command=command))
        server.put(instance_of(model, key))
    worker = await start(stop_grace=20.0)
    pids = [pid_of(await server.until_state(S.RUNNING, key)) for key in (1, 2)]
    with trio.fail_after(PATIENCE):
        await worker.stop()
    assert own.with_suffix(".well").exists() and other.with_suffix(".well").exists()
    assert not [pid for pid in pids if is_running(pid)]
    assert {server.instance(key).state for key in (1, 2)} == {S.INITIALIZING}
    assert "worker was stopped" in server.instance(1).state_message


async def test_an_engine_that_will_not_end_is_killed_after_the_grace_of_the_operator(
    server: FakeServer, start: Start
) -> None:
    server.put(model := custom_model("--ignore-term"))
    server.put(instance_of(model))
    worker = await start(stop_grace=0.2)
    running = await server.until_state(S.RUNNING)
    with trio.fail_after(PATIENCE):
        await worker.stop()
    assert not is_running(pid_of(running))


@pytest.mark.parametrize("how", ["deleted", "stopped"])
@pytest.mark.parametrize("moment", [S.INITIALIZING, S.DOWNLOADING, S.STARTING, S.RUNNING, S.ERROR])
async def test_whenever_it_is_ended_nothing_is_left(
    server: FakeServer, start: Start, hub: Hub, moment: S, how: str, tmp_path: Path
) -> None:
    hub.add("me/model", {"tiny.gguf": b"GGUF" + os.urandom(100_000)})
    source = ModelSource(
        kind=SourceKind.HUGGING_FACE, huggingface_repo_id="me/model", huggingface_filename="tiny.gguf"
    )
    end = ("--exit-after", "0.1") if moment is S.ERROR else ()
    server.put(
        model := custom_model("--reply", f"'{tmp_path}'", "--name", "{model_path}", *end, source=source)
    )
    server.put(instance_of(model))
    worker = await start(endpoint=hub.url)
    await server.until(lambda: moment in server.states())
    with trio.fail_after(PATIENCE):
        if how == "deleted":
            server.change(deleted_at=utc_now())
            await server.until(lambda: not server.assigned.instances)
        else:
            await worker.stop()
    assert not processes_with(str(tmp_path))
    assert not worker.ports.held
    assert not list(worker.context.state_dir.glob("*.json"))


def processes_with(words: str) -> list[int]:
    """Processes that have ``words`` on their command line."""
    found = []
    for folder in Path("/proc").iterdir():
        if folder.name.isdigit() and int(folder.name) != os.getpid():
            try:
                if words.encode() in (folder / "cmdline").read_bytes():
                    found.append(int(folder.name))
            except OSError:
                continue
    return found


async def test_a_port_that_somebody_took_meanwhile_is_no_failure(
    server: FakeServer, start: Start, tmp_path: Path
) -> None:
    """Linux gives ports of the default range to clients too: the engine starts again at once, with another port."""
    once = tmp_path / "once"
    tries = f"if [ ! -e {once} ]; then touch {once}; echo 'OSError: [Errno 98] Address already in use'; exit 1; fi"
    command = f"/bin/sh -c {shlex.quote(f'{tries}; exec {engine_command()}')}"
    server.put(model := attrs.evolve(custom_model(), command=command, restart_on_error=False))
    server.put(instance_of(model))
    await start()
    await server.until_state(S.RUNNING)
    ports = [report.port for _, report in server.reports if report.state is S.STARTING]
    assert len(set(ports)) == 2
    assert S.ERROR not in server.states()
    assert server.instance().restart_count == 0
