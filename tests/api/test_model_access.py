"""For whom a model is: said in its record, and kept in every list of models."""

from __future__ import annotations

from typing import Any

import pytest

from gpustack.domain.access import User
from gpustack.domain.model import Model, ModelAccess

from .world import World

LISTS = ("/v1/models", "/v1-openai/models")
LOCAL = {"source": "local_path", "local_path": "/x.gguf"}


async def of_each_kind(world: World, ada: User) -> None:
    await world.model("public", ready_replicas=1, access=ModelAccess.PUBLIC, meta={"voices": ["anna"]})
    await world.model("authed", ready_replicas=1, meta={"voices": ["anna"]})
    named: dict[str, Any] = {"access": ModelAccess.ALLOWED_USERS, "allowed_user_ids": (ada.id,)}
    await world.model("named", ready_replicas=1, meta={"voices": ["anna"]}, **named)


async def seen(world: World, path: str, who: User | str | None) -> set[str]:
    answer = await world.ask("GET", path, who)
    assert answer.status_code == 200, answer.text
    document = answer.json()
    found = {item["id"] for item in document["data"]}
    if "items" in document:
        assert {item["name"] for item in document["items"]} == found
        assert document["pagination"]["total"] == len(found)
    return found


@pytest.mark.attack("access")
@pytest.mark.parametrize("path", LISTS)
async def test_a_list_shows_only_models_that_the_caller_may_use(world: World, path: str) -> None:
    ada, bob = await world.user("ada"), await world.user("bob")
    await of_each_kind(world, ada)
    body = {"name": "narrow", "allowed_model_names": ["named", "authed", "none"]}
    narrow = (await world.ask("POST", "/v1/api-keys", world.admin, json=body)).json()["value"]
    assert await seen(world, path, world.admin) == {"public", "authed", "named"}
    assert await seen(world, path, ada) == {"public", "authed", "named"}
    assert await seen(world, path, bob) == {"public", "authed"}
    assert await seen(world, path, narrow) == {"authed", "named"}
    assert await seen(world, path, None) == {"public"}
    assert await seen(world, path, "sk-stand-in") == {"public"}


@pytest.mark.attack("access")
async def test_a_model_is_read_by_those_who_may_use_it(world: World) -> None:
    ada, bob = await world.user("ada"), await world.user("bob")
    await of_each_kind(world, ada)
    for path in ("/v1/models/named", "/v1-openai/models/named", "/v1/models/3"):
        assert (await world.ask("GET", path, ada)).status_code == 200
        assert (await world.ask("GET", path, bob)).status_code == 404
        assert (await world.ask("GET", path, None)).status_code in (401, 404)
        assert (
            await world.ask("GET", path.replace("named", "public").replace("3", "1"), None)
        ).status_code == 200


@pytest.mark.attack("access")
async def test_voices_are_shown_of_models_that_the_caller_may_use(world: World) -> None:
    ada, bob = await world.user("ada"), await world.user("bob")
    await of_each_kind(world, ada)
    table: list[tuple[User | None, dict[str, int]]] = [
        (ada, {"public": 200, "authed": 200, "named": 200, "none": 404}),
        (bob, {"public": 200, "authed": 200, "named": 404, "none": 404}),
        (None, {"public": 200, "authed": 401, "named": 401, "none": 401}),
    ]
    for who, wanted in table:
        answers = {name: await world.ask("GET", f"/v1/voices?model={name}", who) for name in wanted}
        assert {name: answer.status_code for name, answer in answers.items()} == wanted
    hidden, missing = [await world.ask("GET", f"/v1/voices?model={n}", bob) for n in ("named", "none")]
    assert hidden.text.replace("'named'", "'none'") == missing.text


@pytest.mark.attack("access")
@pytest.mark.parametrize("path", LISTS)
async def test_without_a_public_model_nothing_is_there_for_anybody(world: World, path: str) -> None:
    await world.model("authed", ready_replicas=1)
    assert (await world.ask("GET", path)).status_code == 401


@pytest.mark.attack("access")
@pytest.mark.parametrize(
    "bearer", ["gpustack_0123456789abcdef_" + "0" * 32, "gpustack_worker_1_abc"], ids=lambda text: text[:16]
)
async def test_a_key_that_is_no_good_is_told_so_though_anybody_might(world: World, bearer: str) -> None:
    await world.model("public", ready_replicas=1, access=ModelAccess.PUBLIC)
    assert (await world.ask("GET", "/v1/models", bearer)).status_code == 401
    async with world.client() as client:
        assert (await client.get("/v1/models", auth=("admin", "wrong"))).status_code == 401


@pytest.mark.attack("access")
async def test_anybody_may_see_public_models_and_nothing_else(world: World) -> None:
    model = await world.model("public", ready_replicas=1, access=ModelAccess.PUBLIC, env={"HF_TOKEN": "hf_x"})
    answer = await world.ask("GET", "/v1/models")
    assert "hf_x" not in answer.text
    assert (await world.ask("GET", f"/v1/models/{model.id}")).json() == answer.json()["items"][0]
    for method, path in (
        ("GET", "/v1/models?watch=true"),
        ("GET", f"/v1/models/{model.id}/instances"),
        ("PUT", f"/v1/models/{model.id}"),
        ("POST", "/v1/models"),
        ("GET", "/v1/users/me"),
        ("GET", "/proxy?url=https://huggingface.co/api/models"),
    ):
        assert (await world.ask(method, path, json={})).status_code == 401, path


async def test_access_is_set_changed_and_shown(world: World) -> None:
    ada = await world.user("ada")
    body: dict[str, Any] = {"name": "m", **LOCAL}
    made = (await world.ask("POST", "/v1/models", world.admin, json=body)).json()
    assert (made["access_policy"], made["allowed_users"]) == ("authed", [])
    path = f"/v1/models/{made['id']}"
    change = {"access_policy": "allowed_users", "allowed_users": [ada.id, ada.id]}
    changed = (await world.ask("PUT", path, world.admin, json=change)).json()
    assert (changed["access_policy"], changed["allowed_users"]) == ("allowed_users", [ada.id])
    assert world.store.snapshot.models[made["id"]].generation == 1, "nothing that runs has changed"
    for wrong, status in (
        ({"access_policy": "everybody"}, 422),
        ({"access_policy": None}, 422),
        ({"allowed_users": ["ada"]}, 422),
        ({"allowed_users": [0]}, 422),
        ({"allowed_users": [999]}, 400),
    ):
        assert (await world.ask("PUT", path, world.admin, json=wrong)).status_code == status, wrong
    assert await world.get(path) == changed
    assert (
        await world.ask("POST", "/v1/models", world.admin, json={**body, "name": "n", "allowed_users": [999]})
    ).status_code == 400


async def test_who_is_deleted_is_on_no_list_any_more(world: World) -> None:
    ada, bob = await world.user("ada"), await world.user("bob")
    both = await world.model("both", access=ModelAccess.ALLOWED_USERS, allowed_user_ids=(ada.id, bob.id))
    one = await world.model("one", access=ModelAccess.ALLOWED_USERS, allowed_user_ids=(ada.id,))
    assert (await world.ask("DELETE", f"/v1/users/{ada.id}", world.admin)).status_code == 200
    assert world.store.snapshot.models[both.id].allowed_user_ids == (bob.id,)
    assert not world.store.snapshot.models[one.id].allowed_user_ids
    assert world.store.snapshot.models[one.id].access is ModelAccess.ALLOWED_USERS


async def test_a_narrow_key_of_an_administrator_manages_only_what_it_sees(world: World) -> None:
    await world.model("a")
    other = await world.model("b")
    body = {"name": "narrow", "allowed_model_names": ["a"]}
    narrow = (await world.ask("POST", "/v1/api-keys", world.admin, json=body)).json()["value"]
    for method in ("GET", "PUT", "DELETE"):
        assert (await world.ask(method, f"/v1/models/{other.id}", narrow, json={})).status_code == 404
    assert world.store.snapshot.get(Model, other.id) is not None


@pytest.mark.parametrize("path", ["/v1/models/m", "/v1-openai/models/m"])
async def test_a_model_that_starts_again_is_not_said_to_be_none(world: World, path: str) -> None:
    """Nothing serves it at the moment; to who may not use it there is none, as before."""
    ada, bob = await world.user("ada"), await world.user("bob")
    only: dict[str, Any] = {"access": ModelAccess.ALLOWED_USERS, "allowed_user_ids": (ada.id,)}
    await world.model("m", ready_replicas=0, **only)
    answer = await world.ask("GET", path, ada)
    assert answer.status_code == 404
    assert "'m' is deployed, but none of its replicas serves at the moment" in answer.text
    hidden = await world.ask("GET", path, bob)
    assert (hidden.status_code, "no model named 'm' is deployed" in hidden.text) == (404, True)
