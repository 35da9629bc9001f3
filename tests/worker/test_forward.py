"""The worker's own port: for the server alone, to engines that live here alone, and for their logs."""

from __future__ import annotations

import json
import os
import signal

import pytest
import trio

from gpustack.domain.lifecycle import InstanceState as S
from tests.worker.conftest import Start
from tests.worker.daemon import ask, custom_model, instance_of
from tests.worker.server import FORWARD_KEY, PATIENCE, FakeServer
from tests.worker.test_instance import pid_of, port_of

KEY = f"Bearer {FORWARD_KEY}"


@pytest.mark.parametrize("path", ["/healthz", "/readyz", "/version"])
async def test_everybody_may_ask_whether_it_lives(server: FakeServer, start: Start, path: str) -> None:
    worker = await start()
    assert (await ask(worker.port, path))[0] == 200


@pytest.mark.attack("worker")
@pytest.mark.parametrize("path", ["/proxy/v1/models", "/serveLogs/1", "/modelFacts", "/elsewhere"])
@pytest.mark.parametrize("given", [{}, {"authorization": "Bearer x"}, {"authorization": FORWARD_KEY}])
async def test_everything_else_wants_the_forward_key(
    server: FakeServer, start: Start, path: str, given: dict[str, str]
) -> None:
    worker = await start()
    await server.until(lambda: bool(server.statuses))
    assert (await ask(worker.port, path, headers=given))[0] == 401


@pytest.mark.attack("worker")
async def test_nobody_is_let_in_before_the_worker_has_joined(server: FakeServer, start: Start) -> None:
    worker = await start(token="wrong")
    assert (await ask(worker.port, "/elsewhere"))[0] == 401
    for key in (KEY, "Bearer "):  # a server that asks so early is to ask again: its key may be good
        status, answer = await ask(worker.port, "/elsewhere", headers={"authorization": key})
        assert status == 503 and b"has not joined its server yet" in answer


@pytest.mark.attack("ssrf")
@pytest.mark.parametrize(("port", "status"), [("22", 503), ("x", 400), ("", 400), ("9" * 5000, 400)])
async def test_only_ports_of_engines_are_forwarded_to(
    server: FakeServer, start: Start, port: str, status: int
) -> None:
    worker = await start()
    await server.until(lambda: bool(server.statuses))
    assert (await worker.ask("/proxy/v1/models", x_target_port=port))[0] == status
    own = await worker.ask("/proxy/healthz", x_target_port=str(worker.port))
    assert own[0] == 503


@pytest.mark.attack("secret")
async def test_an_engine_is_given_the_request_without_what_was_meant_for_us(
    server: FakeServer, start: Start
) -> None:
    server.put(model := custom_model())
    server.put(instance_of(model))
    worker = await start()
    running = await server.until_state(S.RUNNING)
    body = json.dumps({"model": "m", "messages": []}).encode()
    status, _ = await worker.through(
        port_of(running),
        "/v1/chat/completions?x=1",
        method="POST",
        body=body,
        x_trace="abc",
        cookie="secret",
        x_api_key="mine",
    )
    _, told = await ask(port_of(running), "/_control")
    seen = json.loads(told)["last"]
    got = {name.lower(): value for name, value in seen["headers"].items()}
    assert (status, seen["path"], got["x-trace"]) == (200, "/v1/chat/completions?x=1", "abc")
    assert (
        got["authorization"].startswith("Bearer gpustack-engine-") and FORWARD_KEY not in got["authorization"]
    )
    assert not {"x-target-port", "cookie", "x-api-key"} & got.keys()
    assert got["host"] == f"127.0.0.1:{running.port}"


async def test_an_answer_streams(server: FakeServer, start: Start) -> None:
    server.put(model := custom_model("--reply", "'a b c'"))
    server.put(instance_of(model))
    worker = await start()
    running = await server.until_state(S.RUNNING)
    body = json.dumps({"model": "m", "messages": [], "stream": True}).encode()
    status, answer = await worker.through(port_of(running), "/v1/chat/completions", method="POST", body=body)
    assert (status, answer.count(b"data: ")) == (200, 5)


@pytest.mark.attack("engine")
async def test_an_engine_that_breaks_off_leaves_its_answer_unfinished(
    server: FakeServer, start: Start
) -> None:
    server.put(model := custom_model("--reply", "'a b c'", "--fail-after-tokens", "2"))
    server.put(instance_of(model))
    worker = await start()
    running = await server.until_state(S.RUNNING)
    body = json.dumps({"model": "m", "messages": [], "stream": True}).encode()
    status, answer = await worker.through(port_of(running), "/v1/chat/completions", method="POST", body=body)
    assert (status, answer.endswith(b"0\r\n\r\n")) == (200, False)
    assert (await worker.through(port_of(running)))[0] == 200


async def test_an_engine_that_takes_no_connection_is_unavailable(server: FakeServer, start: Start) -> None:
    server.put(model := custom_model())
    worker = await start()
    await server.until(lambda: bool(server.statuses))
    with worker.ports.lease("nobody listens yet") as port:
        status, body = await worker.through(port)
    assert (status, json.loads(body)["reason"]) == (503, "ServiceUnavailable")
    assert f"port {port}" in json.loads(body)["message"]
    assert model.id == 1


# --- logs


async def test_the_log_of_an_engine_is_read_through_the_workers_port(
    server: FakeServer, start: Start
) -> None:
    server.put(model := custom_model())
    server.put(instance_of(model))
    worker = await start()
    running = await server.until_state(S.RUNNING)
    status, body = await worker.ask("/serveLogs/1")
    assert (status, f"listening on http://127.0.0.1:{running.port}".encode() in body) == (200, True)
    log = worker.context.log_file(1)
    with log.open("a") as file:
        file.write("one\ntwo\nthree\n")
    _, body = await worker.ask("/serveLogs/1?tail=2")
    assert body.endswith(b"two\nthree\n\r\n0\r\n\r\n") and b"one" not in body
    assert (await worker.ask("/serveLogs/1?tail=many"))[0] == 400
    assert (await worker.ask("/serveLogs/7"))[0] == 404
    assert (await worker.ask("/serveLogs/../../worker_uuid"))[0] == 404


@pytest.mark.attack("traversal")
async def test_nothing_but_logs_is_read_as_one(server: FakeServer, start: Start) -> None:
    worker = await start()
    await server.until(lambda: bool(server.statuses))
    for name in ("../../token", "..%2f..%2ftoken", "1/../../token", "-1", "1.log", "9" * 5000, ""):
        assert (await worker.ask(f"/serveLogs/{name}"))[0] == 404


async def test_the_log_of_the_run_before_is_kept(server: FakeServer, start: Start) -> None:
    server.put(model := custom_model())
    server.put(instance_of(model))
    worker = await start()
    first = await server.until_state(S.RUNNING)
    with worker.context.log_file(1).open("a") as file:
        file.write("last words\n")
    os.kill(pid_of(first), signal.SIGKILL)
    await server.until(lambda: server.instance().restart_count == 1 and server.instance().state is S.RUNNING)
    assert "last words" in next(r.state_message or "" for _, r in server.reports if r.state is S.ERROR)
    assert b"last words" not in (await worker.ask("/serveLogs/1"))[1]
    assert b"last words" in (await worker.ask("/serveLogs/1?previous=true"))[1]


async def test_a_log_is_followed_until_the_client_leaves(server: FakeServer, start: Start) -> None:
    server.put(model := custom_model())
    server.put(instance_of(model))
    worker = await start()
    await server.until_state(S.RUNNING)
    with trio.fail_after(PATIENCE):
        async with await trio.open_tcp_stream("127.0.0.1", worker.port) as stream:
            await stream.send_all(
                f"GET /serveLogs/1?follow=true HTTP/1.1\r\nhost: x\r\nauthorization: {KEY}\r\n\r\n".encode()
            )
            seen = b""
            while b"listening on" not in seen:
                seen += await stream.receive_some(65536)
            with worker.context.log_file(1).open("a") as file:
                file.write("and then\n")
            while b"and then" not in seen:
                seen += await stream.receive_some(65536)
