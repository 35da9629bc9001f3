"""Engines answer who knows their key, and nobody else on the machine: no other user, and no web page."""

from __future__ import annotations

import itertools
import json
import random
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gpustack.domain.instance import ModelInstance
from gpustack.domain.lifecycle import InstanceState as S
from gpustack.worker.engine_key import KeyFilter, make_engine_key, without_keys
from tests.worker.conftest import Start
from tests.worker.daemon import Daemon, ask, custom_model, instance_of
from tests.worker.server import FakeServer
from tests.worker.test_instance import port_of

KEY = make_engine_key(random.Random(5))
CHAT = json.dumps({"model": "m", "messages": []}).encode()


async def served(server: FakeServer, start: Start) -> tuple[Daemon, ModelInstance]:
    """An engine that demands its key for everything, its readiness included."""
    server.put(model := custom_model("--closed", health_path="/v1/models"))
    server.put(instance_of(model))
    worker = await start()
    return worker, await server.until_state(S.RUNNING)


@pytest.mark.attack("engine")
async def test_an_engine_is_probed_and_asked_with_its_key_and_shuts_everybody_else_out(
    server: FakeServer, start: Start
) -> None:
    worker, running = await served(server, start)
    assert (await worker.through(port_of(running)))[0] == 200
    for headers in ({}, {"authorization": "Bearer x"}, {"origin": "http://page.example", "x_api_key": "x"}):
        assert (await ask(port_of(running), "/v1/models", headers=headers))[0] == 401


async def test_an_adopted_engine_is_asked_with_the_key_it_was_started_with(
    server: FakeServer, start: Start, start_next: Start
) -> None:
    worker, running = await served(server, start)
    await worker.crash()
    worker = await start_next()
    assert server.instance().pid == running.pid
    assert (await worker.through(port_of(running)))[0] == 200


async def test_keys_of_engines_left_running_are_known_before_these_are_adopted(
    server: FakeServer, start: Start
) -> None:
    worker, running = await served(server, start)
    known = worker.keys.fields(port_of(running))
    await worker.crash()
    next_one = Daemon(server, worker.folder)
    await next_one.keys.expect(worker.context.state_dir)
    assert next_one.keys.fields(port_of(running)) == known != ()


async def test_an_engine_of_a_former_version_has_no_key_and_goes_on_working(
    server: FakeServer, start: Start, start_next: Start
) -> None:
    server.put(model := custom_model())
    server.put(instance_of(model))
    worker = await start()
    running = await server.until_state(S.RUNNING)
    await worker.crash()
    file = worker.context.state_file(1)
    state = json.loads(file.read_text())
    del state["secrets"]
    file.write_text(json.dumps(state))
    worker = await start_next()
    assert server.instance().pid == running.pid
    assert (await worker.through(port_of(running), "/v1/chat/completions", method="POST", body=CHAT))[
        0
    ] == 200
    seen = json.loads((await ask(port_of(running), "/_control"))[1])["last"]
    assert "authorization" not in {name.lower() for name in seen["headers"]}


@pytest.mark.attack("secret")
async def test_the_key_of_an_engine_is_in_its_environment_and_its_private_file_alone(
    server: FakeServer, start: Start
) -> None:
    worker, running = await served(server, start)
    file = worker.context.state_file(1)
    key = json.loads(file.read_text())["secrets"]["api_key"]
    process = Path(f"/proc/{running.pid}")
    assert f"GPUSTACK_ENGINE_API_KEY={key}" in (process / "environ").read_text().split("\0")
    assert key not in (process / "cmdline").read_text()
    assert (file.stat().st_mode & 0o777, file.parent.stat().st_mode & 0o777) == (0o600, 0o700)
    assert key not in repr((server.reports, worker.context, worker.supervisor, worker.keys))


@pytest.mark.attack("secret")
async def test_an_engine_that_writes_its_key_down_shows_it_to_nobody(
    server: FakeServer, start: Start
) -> None:
    """Neither as the reason of its end, nor in the log that is served."""
    words = "sh -c 'echo key $GPUSTACK_ENGINE_API_KEY for {port}; exit 3'"
    server.put(model := custom_model(command=words, restart_on_error=False))
    server.put(instance_of(model))
    worker = await start()
    failed = await server.until_state(S.ERROR)
    assert "key gpustack-engine-*** for" in failed.state_message
    status, text = await worker.ask("/serveLogs/1")
    assert status == 200
    assert text.count(b"gpustack-engine-***") == 1 and text.count(b"gpustack-engine-") == 1
    status, text = await worker.ask("/engineLaunch/1")
    assert status == 200, "with what it was started is kept for who looks why it failed"
    launched = json.loads(text)
    assert launched["argv"][:2] == ["sh", "-c"]
    assert b"gpustack-engine-" not in text
    assert (await worker.ask("/engineLaunch/7"))[0] == 404


@given(st.lists(st.integers(0, 120)), st.sampled_from(["", "gpustack-engine-", "gpu", "\n", KEY[:-1]]))
def test_keys_are_taken_out_of_a_text_wherever_it_is_cut(cuts: list[int], end: str) -> None:
    text = f"a {KEY}{KEY} gpustack-engine-no {KEY[:-3]} {KEY}{end}".encode()
    places = sorted({0, len(text), *(cut % len(text) for cut in cuts)})
    taken = KeyFilter()
    came = [taken.feed(text[start:stop]) for start, stop in itertools.pairwise(places)]
    assert b"".join([*came, taken.rest()]).decode() == without_keys(text.decode())


@given(st.text(alphabet="gpustack-engine0f\n"))
def test_a_text_without_keys_stays_as_it_is(text: str) -> None:
    taken = KeyFilter()
    assert taken.feed(text.encode()) + taken.rest() == text.encode()
    assert taken.feed(f"{text}.\n".encode()) == f"{text}.\n".encode(), "a finished line is not kept back"
