"""API keys: everybody's own, shown once."""

from __future__ import annotations

import re
from typing import Any

import pytest

from gpustack.domain.access import ApiKey

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


async def test_nobody_sees_or_deletes_the_keys_of_others(world: World) -> None:
    ada, bob = await world.user("ada"), await world.user("bob")
    own = (await world.get("/v1/api-keys", ada))["items"]
    assert [item["user_id"] for item in own] == [ada.id]
    for other in (bob, world.admin):
        answer = await world.ask("DELETE", f"/v1/api-keys/{own[0]['id']}", other)
        assert answer.status_code == 404
    assert world.store.snapshot.get(ApiKey, own[0]["id"]) is not None
    gone = await world.ask("DELETE", f"/v1/api-keys/{own[0]['id']}", ada)
    assert (gone.status_code, gone.json()) == (200, None)
