"""Limits of use are written to users, keys and models, and shown as they were written."""

from __future__ import annotations

from typing import Any

import pytest

from gpustack.domain.usage import BudgetDraw

from .test_models import create
from .world import PASSWORD, World

LIMITS = {
    "requests_per_minute": 60,
    "tokens_per_minute": 10_000,
    "concurrent_requests": 4,
    "tokens_per_day": 1_000_000,
    "tokens_per_month": 0,
}


async def test_users_keys_and_models_have_limits(world: World) -> None:
    ada = await world.user("ada")
    key = await world.ask("POST", "/v1/api-keys", ada, json={"name": "cli", "limits": LIMITS})
    assert key.json()["limits"] == LIMITS
    listed = {one["name"]: one["limits"] for one in (await world.get("/v1/api-keys", ada))["items"]}
    assert listed["cli"] == LIMITS
    model = (await create(world, limits=LIMITS)).json()
    assert model["limits"] == LIMITS
    user = {
        "username": "eve",
        "password": PASSWORD,
        "limits": {"tokens_per_day": 5, "tokens_per_month": None},
    }
    made = (await world.ask("POST", "/v1/users", world.admin, json=user)).json()
    assert made["limits"] == {"tokens_per_day": 5}


async def test_limits_are_replaced_as_a_whole_and_taken_away(world: World) -> None:
    model = (await create(world, limits=LIMITS)).json()
    path = f"/v1/models/{model['id']}"
    for sent, shown in (({"tokens_per_day": 7}, {"tokens_per_day": 7}), ({}, {}), (None, None)):
        changed = await world.ask("PUT", path, world.admin, json={"limits": sent})
        assert changed.json()["limits"] == shown
        assert changed.json()["generation"] == model["generation"], "nothing is started anew for it"


@pytest.mark.parametrize(
    ("limits", "fault"),
    [
        ({"tokens_per_day": -1}, "limits.tokens_per_day: must be at least 0"),
        ({"tokens_per_day": 1.5}, "limits.tokens_per_day: must be a whole number"),
        ({"tokens_per_day": True}, "limits.tokens_per_day: must be a whole number"),
        ({"tokens_per_day": "9"}, "limits.tokens_per_day: must be a whole number"),
        ({"tokens_per_day": 2**63}, "limits.tokens_per_day: must be at least 0"),
        ({"tokens_a_day": 9}, "limits.tokens_a_day: is not known"),
        ([], "limits: must be an object"),
        (9, "limits: must be an object"),
    ],
)
async def test_what_is_no_limit_is_refused(world: World, limits: Any, fault: str) -> None:
    """A limit that is misspelt would not hold, and nobody would notice."""
    ada = await world.user("ada")
    answer = await world.ask("POST", "/v1/api-keys", ada, json={"name": "cli", "limits": limits})
    assert answer.status_code == 422
    assert answer.json()["message"].startswith(f"1 validation errors:\n{fault}")


async def test_everybody_sees_what_is_left_of_the_own_limits(world: World) -> None:
    ada, eve = await world.user("ada"), await world.user("eve")
    number = (await world.get("/v1/users/me", ada))["id"]
    await world.ask("PUT", f"/v1/users/{number}", world.admin, json={"limits": {"tokens_per_day": 500}})
    key = (await world.ask("POST", "/v1/api-keys", ada, json={"name": "cli", "limits": LIMITS})).json()
    today = world.clock.now.date().isoformat()
    await world.store.write(
        lambda tx: tx.insert(BudgetDraw(subject=f"user:{number}", period=today, drawn=120))
    )
    mine = await world.get("/v1/users/me/limits", ada)
    day = {"limit": 500, "remaining": 380, "ends_at": "2026-01-03T00:00:00Z"}
    assert mine == {"limits": {"tokens_per_day": 500}, "day": day, "month": None}
    assert await world.get(f"/v1/users/{number}/limits") == mine
    of_key = await world.get(f"/v1/api-keys/{key['id']}/limits", ada)
    assert of_key["limits"] == LIMITS
    assert of_key["month"] == {"limit": 0, "remaining": 0, "ends_at": "2026-02-01T00:00:00Z"}
    assert (await world.ask("GET", f"/v1/api-keys/{key['id']}/limits", eve)).status_code == 404
    assert (await world.ask("GET", f"/v1/users/{number}/limits", eve)).status_code == 403
    model = (await create(world)).json()
    assert await world.get(f"/v1/models/{model['id']}/limits") == {"limits": None, "day": None, "month": None}


@pytest.mark.attack("limits")
async def test_nobody_takes_the_own_limits_away(world: World) -> None:
    ada = await world.user("ada")
    number = (await world.get("/v1/users/me", ada))["id"]
    await world.ask("PUT", f"/v1/users/{number}", world.admin, json={"limits": LIMITS})
    await world.ask("PUT", "/v1/users/me", ada, json={"limits": None, "full_name": "Ada"})
    assert (await world.get("/v1/users/me", ada))["limits"] == LIMITS
    assert (await world.ask("PUT", f"/v1/users/{number}", ada, json={"limits": None})).status_code == 403


@pytest.mark.attack("limits")
async def test_a_limited_key_comes_to_no_more_by_another_key(world: World) -> None:
    ada = await world.user("ada")
    some = {"requests_per_minute": 5, "tokens_per_day": 100}
    made = (await world.ask("POST", "/v1/api-keys", ada, json={"name": "cli", "limits": some})).json()
    other = (await world.ask("POST", "/v1/api-keys", ada, json={"name": "other"})).json()
    key, mine, its = made["value"], f"/v1/api-keys/{made['id']}", f"/v1/api-keys/{other['id']}"
    for limits in (None, {}, some, {"tokens_per_day": 1}):
        new = await world.ask("POST", "/v1/api-keys", key, json={"name": "more", "limits": limits})
        assert (new.status_code, "another one would have anew" in new.text) == (403, True)
        assert (await world.ask("PUT", its, key, json={"limits": limits})).status_code == 403
    for looser in (None, {}, {**some, "requests_per_minute": 6}, {"requests_per_minute": 5}):
        answer = await world.ask("PUT", mine, key, json={"limits": looser})
        assert (answer.status_code, "cannot loosen" in answer.text) == (403, True)
    tighter = {**some, "requests_per_minute": 4, "concurrent_requests": 1}
    assert (await world.ask("PUT", mine, key, json={"limits": tighter})).json()["limits"] == tighter
    reads = {"name": "reads", "scopes": ["read"]}
    assert (await world.ask("POST", "/v1/api-keys", key, json=reads)).status_code == 200
    assert (await world.ask("PUT", mine, ada, json={"limits": None})).json()["limits"] is None
    free = await world.ask("POST", "/v1/api-keys", key, json={"name": "more", "limits": some})
    assert free.status_code == 200
