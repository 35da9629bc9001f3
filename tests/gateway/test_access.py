"""Inference is for whom the model and the key say, on every path of it."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any

import pytest
import trio
import trio.testing

from gpustack.domain.access import ApiKey, KeyScope, User
from gpustack.domain.instance import ModelInstance
from gpustack.domain.lifecycle import InstanceState, Party
from gpustack.domain.model import Model, ModelAccess
from gpustack.gateway.path import INFERENCE_PATHS
from gpustack.store.transaction import Tx
from tests.fakes.running import RunningEngine
from tests.http1.wire import Client, Script, eventually

from .world import NOW, World, chat, error_of, key_of

StartEngine = Callable[..., RunningEngine]

PATHS = [route.path for route in INFERENCE_PATHS]
STREAM = (
    b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n"
    b"d\r\ndata: hello\n\n\r\n"
)
ANSWERED = {"public": 200, "authed": 200, "named": 200, "none": 404}


async def callers(world: World) -> dict[str, tuple[str, dict[str, int]]]:
    """A key of everybody, and what each model answers to it."""
    rng, write = random.Random(8), world.store.write
    (ada,) = world.store.snapshot.users.values()
    bob = await write(lambda tx: tx.insert(User(username="bob")))
    boss = await write(lambda tx: tx.insert(User(username="boss", is_admin=True)))

    async def key(user: User, **more: Any) -> str:
        return await key_of(world.store, rng, user, **more)

    no = dict.fromkeys(ANSWERED, 403)
    return {
        "ada": (world.key, ANSWERED),
        "bob": (await key(bob), {**ANSWERED, "named": 404}),
        "boss": (await key(boss), ANSWERED),
        "narrow": (
            await key(boss, allowed_models=("authed", "none")),
            {**ANSWERED, "public": 404, "named": 404},
        ),
        "narrow key of who may not": (
            await key(bob, allowed_models=("named",)),
            dict.fromkeys(ANSWERED, 404),
        ),
        "infers": (await key(ada, scopes=(KeyScope.INFERENCE,)), ANSWERED),
        "reads": (await key(boss, scopes=(KeyScope.READ,)), no),
        "manages": (await key(boss, scopes=(KeyScope.MANAGEMENT, KeyScope.READ)), no),
        "is off": (await key(boss, is_enabled=False), dict.fromkeys(ANSWERED, 401)),
        "anybody": ("", {"public": 200, "authed": 401, "named": 401, "none": 401}),
        "anybody with a stand-in": ("sk-x", {"public": 200, "authed": 401, "named": 401, "none": 401}),
        "joiner": ("the-token", no),
    }


@pytest.mark.attack("access")
@pytest.mark.parametrize("path", PATHS)
async def test_a_model_answers_whom_it_is_for(world: World, fake_engine: StartEngine, path: str) -> None:
    port = fake_engine().port
    (ada,) = world.store.snapshot.users.values()
    await world.deploy("public", port, access=ModelAccess.PUBLIC)
    await world.deploy("authed", port)
    await world.deploy("named", port, access=ModelAccess.ALLOWED_USERS, allowed_user_ids=(ada.id,))
    wrong = []
    for who, (key, wanted) in (await callers(world)).items():
        for model, status in wanted.items():
            answer = await world.send(chat(model, prompt="a", input="a"), path, key=key)
            if answer.status != status:
                wrong.append((who, model, answer.status, answer.body))
    assert not wrong


@pytest.mark.attack("access")
async def test_a_model_for_others_looks_like_none(world: World, fake_engine: StartEngine) -> None:
    await world.deploy("secret", fake_engine().port, access=ModelAccess.ALLOWED_USERS)
    hidden, missing = await world.ask("secret"), await world.ask("absent")
    assert error_of(hidden)["message"] == "Model not found: no model named 'secret' is deployed"
    assert hidden.body.replace(b"'secret'", b"'absent'") == missing.body


@pytest.mark.attack("access")
async def test_without_a_public_model_nobody_is_read_without_a_name(world: World) -> None:
    answer = await world.send(b"x" * 1000, key="")
    assert answer.status == 401


@pytest.mark.attack("flood")
async def test_who_does_not_say_who_it_is_gets_less_memory(world: World, fake_engine: StartEngine) -> None:
    await world.deploy("public", fake_engine().port, access=ModelAccess.PUBLIC)
    large = chat("public", padding="x" * (5 << 20))
    assert (await world.send(large, key="")).status == 413
    assert (await world.send(large)).status == 200


ENDS: dict[str, Callable[[Tx, User, ApiKey, Model], object]] = {
    "the user is disabled": lambda tx, user, key, model: tx.change(User, user.id, is_active=False),
    "the user is deleted": lambda tx, user, key, model: tx.delete(User, user.id),
    "the role changes": lambda tx, user, key, model: tx.change(User, user.id, is_admin=True),
    "the key is deleted": lambda tx, user, key, model: tx.delete(ApiKey, key.id),
    "the key is off": lambda tx, user, key, model: tx.change(ApiKey, key.id, is_enabled=False),
    "the key has other scopes": lambda tx, user, key, model: tx.change(
        ApiKey, key.id, scopes=(KeyScope.READ,)
    ),
    "the key is for other models": lambda tx, user, key, model: tx.change(
        ApiKey, key.id, allowed_models=("x",)
    ),
    "the model is for others": lambda tx, user, key, model: tx.change(
        Model, model.id, access=ModelAccess.ALLOWED_USERS
    ),
}


@pytest.mark.attack("session")
@pytest.mark.parametrize("change", ENDS.values(), ids=ENDS)
@pytest.mark.parametrize("begun", [True, False], ids=["streams", "waits for its first byte"])
async def test_an_answer_under_way_ends_with_the_right_to_it(
    world: World, change: Callable[[Tx, User, ApiKey, Model], object], begun: bool
) -> None:
    left = trio.Event()

    async def act(client: Client, number: int) -> None:
        await script.request(client)
        if begun:
            await client.send(STREAM)
        await client.rest()
        left.set()

    script = Script(act)
    await world.nursery.start(script.run)
    model = await world.deploy("m", script.port)
    (key,) = world.store.snapshot.api_keys.values()
    (user,) = world.store.snapshot.users.values()
    other = await world.store.write(lambda tx: tx.insert(User(username="bob")))
    client = await world.connect()
    await client.send(world.request(chat("m", stream=True)))
    if begun:
        await client.until(b"hello")
    else:
        await eventually(lambda: world.endpoints.in_flight == 1)
    # What concerns others, or nothing of this, does not end it.
    await world.store.write(lambda tx: tx.change(User, other.id, is_active=False))
    await world.store.write(lambda tx: tx.change(ApiKey, key.id, description="x", last_used_at=NOW))
    await world.store.write(lambda tx: tx.change(Model, model.id, description="x"))
    await trio.testing.wait_all_tasks_blocked(0.01)
    assert not left.is_set()
    await world.store.write(lambda tx: change(tx, user, key, model))
    with trio.fail_after(10):
        await left.wait()
    assert b"[DONE]" not in await client.rest()
    await eventually(lambda: world.endpoints.in_flight == 0)


@pytest.mark.attack("access")
async def test_access_that_is_taken_away_is_gone_with_the_next_request(
    world: World, fake_engine: StartEngine
) -> None:
    model = await world.deploy("m", fake_engine().port)
    (key,) = world.store.snapshot.api_keys.values()
    (ada,) = world.store.snapshot.users.values()
    assert (await world.ask("m")).status == 200
    table: list[tuple[type[Any], int, dict[str, Any], dict[str, Any], int]] = [
        (ApiKey, key.id, {"is_enabled": False}, {"is_enabled": True}, 401),
        (ApiKey, key.id, {"scopes": (KeyScope.READ,)}, {"scopes": None}, 403),
        (ApiKey, key.id, {"allowed_models": ("x",)}, {"allowed_models": None}, 404),
        (User, ada.id, {"is_active": False}, {"is_active": True}, 401),
        (Model, model.id, {"access": ModelAccess.ALLOWED_USERS}, {"access": ModelAccess.AUTHED}, 404),
    ]
    for record, key_id, change, back, status in table:
        await world.store.write(lambda tx: tx.change(record, key_id, **change))  # noqa: B023
        await world.noticed()
        assert (await world.ask("m")).status == status
        await world.store.write(lambda tx: tx.change(record, key_id, **back))  # noqa: B023
        await world.noticed()
        assert (await world.ask("m")).status == 200


@pytest.mark.attack("secret")
async def test_why_a_model_does_not_serve_is_told_in_full_to_administrators_alone(world: World) -> None:
    """Engines' last words and the paths of files are not for everybody who may use the model."""
    model = await world.deploy("m", 9)
    (instance,) = world.store.snapshot.instances_of(model.id)
    words = "The engine exited with code 1: failed to open /home/boss/secret-project/m.gguf"
    await world.store.write(
        lambda tx: tx.move(
            tx.get(ModelInstance, instance.id), InstanceState.ERROR, by=Party.WORKER, message=words
        )
    )
    await world.routed("m", 0)
    boss = await world.store.write(lambda tx: tx.insert(User(username="boss", is_admin=True)))
    rng = random.Random(8)
    told = {
        who: error_of(await world.send(chat("m"), key=key))["message"]
        for who, key in {
            "ada": world.key,
            "boss": await key_of(world.store, rng, boss),
            "a key of boss that only infers": await key_of(
                world.store, rng, boss, scopes=(KeyScope.INFERENCE,)
            ),
        }.items()
    }
    assert words in told.pop("boss")
    for message in told.values():
        assert "it does not start; its administrators see why" in message
        assert "secret-project" not in message and instance.name not in message


@pytest.mark.attack("secret")
async def test_a_request_cannot_bring_back_the_prompt_cache_that_a_model_was_deployed_without(
    world: World, fake_engine: StartEngine
) -> None:
    port = fake_engine().port
    await world.deploy("parted", port, backend_parameters=("--no-cache-prompt",))
    await world.deploy("shared", port, backend_parameters=("--no-cache-prompt", "--cache-prompt"))
    asks = (b'"cache_prompt":true', b'"cache\\u005fprompt": true', b'"cache_prompt":1')
    for ask in asks:
        body = b'{"model":"parted",%b,"messages":[]}' % ask
        assert "keeps no prompts" in error_of(await world.send(body))["message"], ask
        assert (await world.send(body.replace(b"parted", b"shared"))).status == 200
    for harmless in (b'"cache_prompt":false', b'"x":{"cache_prompt":true}', b'"user":"cache_prompt"'):
        assert (await world.send(b'{"model":"parted",%b,"messages":[]}' % harmless)).status == 200, harmless
