"""A worker joins, is heard, says what it has, and joins again when it is not known any more."""

from __future__ import annotations

import attrs
import pytest
import trio

from gpustack.domain.device import Device, DeviceCore
from gpustack.domain.worker import Cpu, Memory, Uptime, WorkerStatus
from gpustack.worker.heartbeat import notable
from tests.worker.conftest import Start
from tests.worker.daemon import BUILDS
from tests.worker.server import FakeServer
from tests.worker.test_away import until


async def test_it_joins_and_says_at_once_what_it_has(server: FakeServer, start: Start) -> None:
    worker = await start(address="192.0.2.7")
    await server.until(lambda: bool(server.statuses))
    assert (server.joins[0].ip, server.joins[0].port) == ("192.0.2.7", worker.port)
    assert server.joins[0].keeps_credential
    assert server.statuses[0].status.engines == BUILDS
    assert server.statuses[0].ip == "192.0.2.7"


async def test_its_name_and_uuid_are_remembered(server: FakeServer, start: Start) -> None:
    worker = await start()
    await server.until(lambda: bool(server.statuses))
    await worker.stop()
    await start()
    await server.until(lambda: len(server.joins) == 2)
    assert server.joins[0].worker_uuid == server.joins[1].worker_uuid
    assert server.joins[0].name == server.joins[1].name


async def test_it_joins_by_the_token_once_and_then_by_its_own_credential(
    server: FakeServer, start: Start
) -> None:
    worker = await start()
    await server.until(lambda: bool(server.statuses))
    kept = worker.folder / "worker_credential"
    assert kept.stat().st_mode & 0o777 == 0o600
    await worker.stop()
    server.wants_credential = True
    await start()
    await server.until(lambda: len(server.joins) == 2)
    assert server.joined_by == ["token", "credential"]


async def test_a_credential_that_is_not_good_any_more_is_left_for_the_token(
    server: FakeServer, start: Start
) -> None:
    worker = await start()
    await server.until(lambda: bool(server.statuses))
    await worker.stop()
    server.generation += 7
    await start()
    await server.until(lambda: len(server.joins) == 2)
    assert server.joined_by == ["token", "credential", "token"]


async def test_a_credential_that_a_heartbeat_brings_is_kept_and_used(
    server: FakeServer, start: Start
) -> None:
    server.heartbeat_interval = 0.1
    worker = await start(measure_every=0.05)
    await server.until(lambda: server.beats > 0 and bool(server.statuses))
    server.hands_out = True
    await server.until(lambda: not server.hands_out)
    beats, known = server.beats, server.generation
    await server.until(lambda: server.beats > beats + 1)
    assert server.generation >= known
    assert str(server.generation) in (worker.folder / "worker_credential").read_text()


@pytest.mark.parametrize("status", [401, 403, 404])
@pytest.mark.parametrize("of", ["/heartbeat", "/assignments", "/status"])
async def test_a_worker_that_is_not_known_any_more_joins_again_and_says_what_it_has(
    server: FakeServer, start: Start, of: str, status: int
) -> None:
    server.heartbeat_interval = 0.2
    server.answers[of] = status
    await start()
    await server.until(lambda: len(server.joins) >= 2)
    server.answers.clear()
    await server.until(lambda: server.generation in server.said_as and server.beats > 0)


async def test_however_many_find_the_credential_void_it_joins_once(server: FakeServer, start: Start) -> None:
    worker = await start()
    await server.until(lambda: bool(server.statuses))
    member = worker.membership.member
    assert member is not None
    worker.membership.void(member)
    await server.until(lambda: len(server.joins) == 2 and worker.membership.member is not None)
    worker.membership.void(member)
    assert worker.membership.member is not None


async def test_it_keeps_trying_while_the_server_is_not_there_yet(server: FakeServer, start: Start) -> None:
    server.answers["/v1/workers"] = 503
    worker = await start()
    await until(lambda: worker.membership.member is None)
    server.answers.clear()
    await server.until(lambda: bool(server.statuses))


async def test_faults_by_turns_are_logged_once_each_and_with_the_option_to_look_at(
    server: FakeServer, start: Start, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO", "gpustack.worker.membership")
    server.answers["/v1/workers"] = 404
    worker = await start()
    await until(lambda: "answer 404" in caplog.text)
    server.answers["/v1/workers"] = 405
    await until(lambda: "answer 405" in caplog.text)
    server.answers["/v1/workers"] = 404
    await trio.sleep(3)  # it has tried again by now
    assert worker.membership.member is None
    lines = [record for record in caplog.messages if "did not take this worker in" in record]
    assert len(lines) == 2 and all("look at --server-url" in line for line in lines)


async def test_one_that_was_told_to_stop_joins_no_more(server: FakeServer, start: Start) -> None:
    """The server would take it for ready, and place on it what nobody runs."""
    server.answers["/v1/workers"] = 503
    worker = await start()
    await until(lambda: worker.membership.member is None)
    await worker.membership.say_goodbye()
    await trio.sleep(1)  # one that is under way may still be answered
    server.answers.clear()
    await trio.sleep(2)  # it would have tried again by now
    assert not server.joins


async def test_a_server_that_hangs_is_waited_for_no_longer_than_until_the_next_beat(
    server: FakeServer, start: Start
) -> None:
    server.heartbeat_interval = 0.2
    server.answers["/heartbeat"] = 0
    await start()
    await server.until(lambda: bool(server.statuses))
    server.answers.clear()
    await server.until(lambda: server.beats >= 2)


async def test_an_address_that_changes_is_told(server: FakeServer, start: Start) -> None:
    worker = await start(address="192.0.2.7", measure_every=0.05)
    await server.until(lambda: bool(server.statuses))
    worker.address = "192.0.2.8"
    await server.until(lambda: server.statuses[-1].ip == "192.0.2.8")


async def test_hardware_that_changes_is_told_and_what_stays_is_not(server: FakeServer, start: Start) -> None:
    server.heartbeat_interval = 0.1
    worker = await start(measure_every=0.05)
    await server.until(lambda: server.beats >= 3)
    assert len(server.statuses) == 1
    worker.status = attrs.evolve(worker.status, cpu=Cpu(total=64.0))
    await server.until(lambda: server.statuses[-1].status.cpu.total == 64.0)


STATUS = WorkerStatus(
    cpu=Cpu(total=4, utilization_rate=10.0),
    memory=Memory(total=100, used=10, utilization_rate=10.0),
    gpu_devices=(
        Device(index=0, vendor="NVIDIA", type="cuda", name="a", core=DeviceCore(utilization_rate=1.0)),
    ),
)


@pytest.mark.parametrize(
    ("after", "told"),
    [
        (STATUS, False),
        (attrs.evolve(STATUS, uptime=Uptime(uptime=9.0)), False),
        (attrs.evolve(STATUS, cpu=Cpu(total=4, utilization_rate=14.0)), False),
        (attrs.evolve(STATUS, cpu=Cpu(total=4, utilization_rate=16.0)), True),
        (attrs.evolve(STATUS, cpu=Cpu(total=4)), True),
        (attrs.evolve(STATUS, memory=Memory(total=100, used=11, utilization_rate=11.0)), False),
        (attrs.evolve(STATUS, memory=Memory(total=200, used=10, utilization_rate=10.0)), True),
        (attrs.evolve(STATUS, gpu_devices=()), True),
        (attrs.evolve(STATUS, detection_faults=("no driver",)), True),
    ],
)
def test_what_is_worth_telling(after: WorkerStatus, told: bool) -> None:
    assert notable(STATUS, after) is told
