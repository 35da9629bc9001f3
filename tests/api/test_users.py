"""Accounts: an administrator's view of all, and everybody's of their own."""

from __future__ import annotations

from typing import Any

import pytest

from gpustack.domain.access import ApiKey, Session, User
from gpustack.identity.sessions import make_session

from .world import PASSWORD, World

NEW = {"username": "ada", "password": PASSWORD, "full_name": "Ada L."}


async def test_an_account_is_created_with_what_was_sent(world: World) -> None:
    answer = await world.ask(
        "POST", "/v1/users", world.admin, json={**NEW, "require_password_change": True, "avatar_url": "a.png"}
    )
    assert answer.status_code == 200
    made = answer.json()
    assert made["id"] == 2
    assert (made["username"], made["full_name"], made["avatar_url"]) == ("ada", "Ada L.", "a.png")
    assert (made["is_admin"], made["require_password_change"], made["source"]) == (False, True, "Local")
    assert await world.get("/v1/users/2") == made


async def test_no_answer_holds_a_password_or_its_hash(world: World) -> None:
    created = await world.ask("POST", "/v1/users", world.admin, json=NEW)
    listed = await world.ask("GET", "/v1/users", world.admin)
    for answer in (created, listed):
        assert PASSWORD not in answer.text
        assert "argon2" not in answer.text
        assert "password" not in answer.text.replace("require_password_change", "")


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ({}, "2 validation errors:\nusername: is missing\npassword: is missing"),
        ({**NEW, "password": None}, "1 validation errors:\npassword: is missing"),
        ({**NEW, "username": " "}, "1 validation errors:\nusername: must be printable"),
        ({**NEW, "username": "a:b"}, "1 validation errors:\nusername: must be printable"),
        ({**NEW, "username": "system/worker/x"}, "1 validation errors:\nusername: must be printable"),
        ({**NEW, "is_admin": "true"}, "1 validation errors:\nis_admin: must be true or false"),
        ({**NEW, "password": "weak"}, "The password must contain an uppercase letter; "),
        ({**NEW, "password": "Aa1!aa1"}, "The password must have at least 8 characters"),
        ({**NEW, "password": "Aa1!" * 1000}, "The password must have at most 1024 characters"),
    ],
)
async def test_a_wrong_account_is_refused(world: World, body: dict[str, Any], message: str) -> None:
    answer = await world.ask("POST", "/v1/users", world.admin, json=body)
    assert answer.status_code == 422
    assert answer.json()["message"].startswith(message)


async def test_a_name_is_taken_once(world: World) -> None:
    await world.ask("POST", "/v1/users", world.admin, json=NEW)
    again = await world.ask("POST", "/v1/users", world.admin, json=NEW)
    assert (again.status_code, again.json()["reason"]) == (409, "AlreadyExists")
    renamed = await world.ask("PUT", "/v1/users/2", world.admin, json={"username": "admin"})
    assert renamed.status_code == 409
    assert (await world.ask("PUT", "/v1/users/2", world.admin, json={"username": "ada"})).status_code == 200


async def test_an_update_changes_only_what_is_sent(world: World) -> None:
    before = (await world.ask("POST", "/v1/users", world.admin, json=NEW)).json()
    answer = await world.ask("PUT", "/v1/users/2", world.admin, json={"full_name": None, "source": "OIDC"})
    after = answer.json()
    assert after == {**before, "full_name": None, "updated_at": after["updated_at"]}


async def test_another_password_from_an_administrator_keeps_the_rules_and_ends_logins(world: World) -> None:
    ada = await world.user("ada", password=PASSWORD)
    _, session = make_session(ada.id, keys=world.context.keys, now=world.clock.now, rng=world.context.rng)
    await world.store.write(lambda tx: tx.insert(session))
    path = f"/v1/users/{ada.id}"
    assert (await world.ask("PUT", path, world.admin, json={"password": "weak"})).status_code == 422
    assert len(world.store.snapshot.all(Session)) == 1
    assert (
        await world.ask("PUT", path, world.admin, json={"full_name": "A", "password": ""})
    ).status_code == 200
    assert len(world.store.snapshot.all(Session)) == 1
    assert (await world.ask("PUT", path, world.admin, json={"password": "Other_3_words"})).status_code == 200
    assert len(world.store.snapshot.all(Session)) == 0
    async with world.client() as client:
        assert (await client.get("/v1/users/me", auth=("ada", "Other_3_words"))).status_code == 200


@pytest.mark.parametrize("change", [{"is_admin": False}, {"is_active": False}])
async def test_the_last_administrator_stays_one(world: World, change: dict[str, bool]) -> None:
    path = f"/v1/users/{world.admin.id}"
    answer = await world.ask("PUT", path, world.admin, json=change)
    assert answer.status_code == 409
    assert answer.json()["message"] == "admin is the last administrator: make somebody else one first"
    assert (await world.ask("DELETE", path, world.admin)).status_code == 409
    await world.user("other", is_admin=True)
    assert (await world.ask("PUT", path, world.admin, json=change)).status_code == 200


async def test_an_inactive_administrator_does_not_count(world: World) -> None:
    await world.user("away", is_admin=True, is_active=False)
    assert (await world.ask("DELETE", f"/v1/users/{world.admin.id}", world.admin)).status_code == 409
    assert world.store.snapshot.get(User, world.admin.id) is not None
    assert [key.user_id for key in world.store.snapshot.api_keys.values()].count(world.admin.id) == 1


async def test_with_an_account_go_its_keys(world: World) -> None:
    ada = await world.user("ada")
    answer = await world.ask("DELETE", f"/v1/users/{ada.id}", world.admin)
    assert (answer.status_code, answer.json()) == (200, None)
    assert not [key for key in world.store.snapshot.all(ApiKey).values() if key.user_id == ada.id]
    assert (await world.ask("GET", f"/v1/users/{ada.id}", world.admin)).status_code == 404


async def test_everybody_reads_their_own_account(world: World) -> None:
    ada = await world.user("ada")
    assert (await world.get("/v1/users/me", ada))["username"] == "ada"


async def test_nobody_makes_themselves_an_administrator(world: World) -> None:
    ada = await world.user("ada")
    body = {"is_admin": True, "username": "root", "source": "SAML", "is_active": False, "full_name": "Ada"}
    answer = await world.ask("PUT", "/v1/users/me", ada, json=body)
    assert answer.status_code == 200
    after = world.store.snapshot.users[ada.id]
    assert (after.is_admin, after.username, after.source.value, after.full_name) == (
        False,
        "ada",
        "Local",
        "Ada",
    )


@pytest.mark.parametrize("field", ["password", "current_password", "new_password"])
async def test_a_password_sent_with_ones_own_account_is_refused_and_told_where_it_belongs(
    world: World, field: str
) -> None:
    ada = await world.user("ada")
    answer = await world.ask("PUT", "/v1/users/me", ada, json={"full_name": "Ada", field: "Other_3_words"})
    assert answer.status_code == 422
    assert f"{field}: a password is changed through POST /auth/update-password" in answer.json()["message"]
    assert "Other_3_words" not in answer.text
    assert world.store.snapshot.users[ada.id].full_name is None
    assert (await world.ask("PUT", "/v1/users/me", ada, json={field: None})).status_code == 200


async def test_accounts_are_found_by_name_and_full_name(world: World) -> None:
    await world.user("ada", full_name="Countess")
    await world.user("bob", full_name="Adams")
    found = await world.get("/v1/users?search=ADA")
    assert [item["username"] for item in found["items"]] == ["bob", "ada"]
    assert found["pagination"]["total"] == 2


@pytest.mark.attack("flood")
async def test_nobody_fills_the_memory_with_pictures(world: World) -> None:
    ada = await world.user("ada")
    for url, status in (("x" * 2048, 200), ("x" * 2049, 422)):
        for method, path, who in (
            ("PUT", "/v1/users/me", ada),
            ("PUT", f"/v1/users/{ada.id}", world.admin),
        ):
            answer = await world.ask(method, path, who, json={"avatar_url": url})
            assert answer.status_code == status
