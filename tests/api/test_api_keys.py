"""API keys: everybody's own, shown once."""

from __future__ import annotations

import re
from typing import Any

import pytest
import trio

from gpustack.api.resources import api_keys
from gpustack.domain.access import ApiKey, User

from .world import World


async def test_a_new_key_is_shown_once_and_works(world: World) -> None:
    ada = await world.user("ada")
    answer = await world.ask("POST", "/v1/api-keys", ada, json={"name": "cli", "description": "mine"})
    made = answer.json()
    assert answer.status_code == 200
    assert re.fullmatch("gpustack_[0-9a-f]{16}_[0-9a-f]{32}", made["value"])
    assert (made["name"], made["description"], made["expires_at"]) == ("cli", "mine", None)
    assert (await world.get("/v1/users/me", made["value"]))["username"] == "ada"
    listed = await world.ask("GET", "/v1/api-keys", ada)
    assert made["value"].rpartition("_")[2] not in listed.text
    assert "hash" not in listed.text
    assert "value" not in listed.text


async def test_a_key_ends_when_it_said(world: World) -> None:
    ada = await world.user("ada")
    body = {"name": "short", "expires_in": 60}
    made = (await world.ask("POST", "/v1/api-keys", ada, json=body)).json()
    assert made["expires_at"] == "2026-01-02T03:05:05Z"
    assert (await world.ask("GET", "/v1/users/me", made["value"])).status_code == 200
    world.clock.forward(60)
    assert (await world.ask("GET", "/v1/users/me", made["value"])).status_code == 401


@pytest.mark.parametrize(
    "body",
    [
        {},
        {"name": ""},
        {"name": "  "},
        {"name": "x", "expires_in": -1},
        {"name": "x", "expires_in": 10**12},
        {"name": "x", "expires_in": "60"},
        {"name": "x" * 256},
        {"name": "x", "scopes": []},
        {"name": "x", "scopes": ["admin"]},
        {"name": "x", "scopes": "read"},
        {"name": "x", "allowed_model_names": []},
        {"name": "x", "allowed_model_names": [1]},
        {"name": "x", "is_enabled": None},
        [],
    ],
)
async def test_a_wrong_key_is_refused(world: World, body: Any) -> None:
    assert (await world.ask("POST", "/v1/api-keys", world.admin, json=body)).status_code == 422


async def test_a_name_is_taken_once_per_person(world: World) -> None:
    ada = await world.user("ada")
    body = {"name": "same"}
    assert (await world.ask("POST", "/v1/api-keys", ada, json=body)).status_code == 200
    assert (await world.ask("POST", "/v1/api-keys", ada, json=body)).status_code == 409
    assert (await world.ask("POST", "/v1/api-keys", world.admin, json=body)).status_code == 200


async def test_everybody_sees_their_own_keys_and_administrators_all_if_they_ask(world: World) -> None:
    ada, bob = await world.user("ada"), await world.user("bob")

    async def owners(query: str, who: User) -> list[int]:
        return sorted(item["user_id"] for item in (await world.get(f"/v1/api-keys{query}", who))["items"])

    own, all_of_them = [world.admin.id], [world.admin.id, ada.id, bob.id]
    assert [await owners("", who) for who in (ada, bob, world.admin)] == [[ada.id], [bob.id], own]
    assert await owners("?all=true", world.admin) == all_of_them
    assert await owners(f"?user_id={ada.id}&user_id={bob.id}", world.admin) == [ada.id, bob.id]
    assert await owners("?all=true", ada) == [ada.id]
    assert await owners(f"?user_id={bob.id}", ada) == []


async def test_a_key_is_deleted_by_its_owner(world: World) -> None:
    ada = await world.user("ada")
    own = (await world.get("/v1/api-keys", ada))["items"]
    gone = await world.ask("DELETE", f"/v1/api-keys/{own[0]['id']}", ada)
    assert (gone.status_code, gone.json()) == (200, None)
    assert world.store.snapshot.get(ApiKey, own[0]["id"]) is None


async def test_a_key_is_changed_and_keeps_what_is_not_sent(world: World) -> None:
    ada = await world.user("ada")
    body = {"name": "cli", "description": "mine", "scopes": ["read", "inference", "read"]}
    made = (await world.ask("POST", "/v1/api-keys", ada, json={**body, "allowed_model_names": ["m"]})).json()
    assert (made["scopes"], made["allowed_model_names"]) == (["inference", "read"], ["m"])
    assert (made["is_enabled"], made["last_used_at"]) == (True, None)
    path = f"/v1/api-keys/{made['id']}"
    after = (await world.ask("PUT", path, ada, json={"name": "new", "expires_in": 60})).json()
    del made["value"]
    changed = {"name": "new", "expires_at": "2026-01-02T03:05:05Z", "updated_at": after["updated_at"]}
    assert after == {**made, **changed}
    more = {"scopes": None, "allowed_model_names": None, "expires_in": None}
    after = (await world.ask("PUT", path, ada, json=more)).json()
    assert (after["scopes"], after["allowed_model_names"], after["expires_at"]) == (None, None, None)
    assert (await world.ask("PUT", path, ada, json={"name": "first"})).status_code == 409


async def test_a_key_is_off_while_it_is_off(world: World) -> None:
    """An administrator may do that too."""
    ada = await world.user("ada")
    made = (await world.ask("POST", "/v1/api-keys", ada, json={"name": "cli"})).json()
    for who in (ada, world.admin):
        for enabled, status in ((False, 401), (True, 200)):
            body = {"is_enabled": enabled}
            assert (await world.ask("PUT", f"/v1/api-keys/{made['id']}", who, json=body)).status_code == 200
            assert (await world.ask("GET", "/v1/users/me", made["value"])).status_code == status
    assert (await world.ask("DELETE", f"/v1/api-keys/{made['id']}", world.admin)).status_code == 200
    assert (await world.ask("GET", "/v1/users/me", made["value"])).status_code == 401


@pytest.mark.attack("flood")
async def test_an_account_has_so_many_keys_and_no_more(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(api_keys, "MOST_KEYS", 4)
    ada, bob = await world.user("ada"), await world.user("bob")
    answers: list[int] = []

    async def make(number: int) -> None:
        answer = await world.ask("POST", "/v1/api-keys", ada, json={"name": f"k{number}"})
        answers.append(answer.status_code)

    async with trio.open_nursery() as nursery:
        for number in range(9):
            nursery.start_soon(make, number)
    there = [key for key in world.store.snapshot.all(ApiKey).values() if key.user_id == ada.id]
    assert len(there) == 4
    assert set(answers) == {200, 409}
    refused = await world.ask("POST", "/v1/api-keys", ada, json={"name": "more"})
    assert refused.json()["message"] == "This account has 4 API keys, the most there may be: delete one first"
    assert (await world.ask("POST", "/v1/api-keys", bob, json={"name": "own"})).status_code == 200
    gone = next(key for key in there if key.name.startswith("k"))
    assert (await world.ask("DELETE", f"/v1/api-keys/{gone.id}", ada)).status_code == 200
    assert (await world.ask("POST", "/v1/api-keys", ada, json={"name": "more"})).status_code == 200


@pytest.mark.attack("flood")
async def test_a_key_names_so_many_models_and_no_more(world: World) -> None:
    ada = await world.user("ada")
    for count, status in ((100, 200), (101, 422)):
        body = {"name": f"k{count}", "allowed_model_names": [f"m{number}" for number in range(count)]}
        assert (await world.ask("POST", "/v1/api-keys", ada, json=body)).status_code == status
