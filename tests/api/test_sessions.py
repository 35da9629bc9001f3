"""Logins of browsers: seen, ended one by one or all at once, by their owner and by administrators."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any

import httpx
import pytest

from gpustack.domain.access import Session, User, UserSource
from gpustack.identity.passwords import hash_password
from gpustack.nursery.limiter import use_thread_runner

from .world import PASSWORD, World

MINE = "/v1/users/me/sessions"


async def signed_in(client: httpx.AsyncClient, name: str) -> None:
    answer = await client.post("/auth/login", data={"username": name, "password": PASSWORD})
    assert answer.status_code == 200, answer.text


async def test_everybody_lists_and_ends_their_own_logins(world: World) -> None:
    await world.user("ada", password=PASSWORD)
    async with world.client() as here, world.client() as there:
        await signed_in(here, "ada")
        await signed_in(there, "ada")
        listed = (await here.get(MINE)).json()
        assert [item["current"] for item in listed["items"]] == [False, True]
        assert listed["pagination"]["total"] == 2
        assert listed["items"][0]["source"] == UserSource.LOCAL
        assert listed["items"][0]["expires_at"] == "2026-01-02T05:04:05Z"
        other = f"{MINE}/{listed['items'][0]['id']}"
        assert (await here.delete(other)).status_code == 200
        assert (await here.delete(other)).status_code == 404
        assert (await there.get("/v1/users/me")).status_code == 401
        assert (await here.get("/v1/users/me")).status_code == 200
        assert (await here.delete(MINE)).status_code == 200
        assert (await here.get("/v1/users/me")).status_code == 401
    assert not world.store.snapshot.all(Session)


async def test_an_administrator_ends_the_logins_of_others(world: World) -> None:
    ada = await world.user("ada", password=PASSWORD)
    path = f"/v1/users/{ada.id}/sessions"
    async with world.client() as client:
        for whole in (False, True):
            await signed_in(client, "ada")
            (shown,) = (await world.get(path))["items"]
            assert (shown["user_id"], shown["current"]) == (ada.id, False)
            one = path if whole else f"{path}/{shown['id']}"
            assert (await world.ask("DELETE", one, world.admin)).status_code == 200
            assert (await client.get("/v1/users/me")).status_code == 401
    assert (await world.ask("GET", "/v1/users/999/sessions", world.admin)).status_code == 404
    assert (await world.ask("DELETE", "/v1/users/999/sessions", world.admin)).status_code == 404


@pytest.mark.attack("session")
async def test_nobody_sees_or_ends_the_logins_of_others(world: World) -> None:
    ada, bob = await world.user("ada", password=PASSWORD), await world.user("bob")
    async with world.client() as client:
        await signed_in(client, "ada")
        (session,) = world.store.snapshot.all(Session).values()
        path = f"/v1/users/{ada.id}/sessions"
        for method, one in itertools.product(("GET", "DELETE"), (path, f"{path}/{session.id}")):
            assert (await world.ask(method, one, bob)).status_code in (403, 405)
        assert (await world.get(MINE, bob))["items"] == []
        for text in (str(session.id), f"{session.id}0", "x", "-1", "9" * 30, "me"):
            assert (await world.ask("DELETE", f"{MINE}/{text}", bob)).status_code == 404
        # Nor through the path of somebody else.
        assert (
            await world.ask("DELETE", f"/v1/users/{bob.id}/sessions/{session.id}", world.admin)
        ).status_code == 404
        assert (await world.ask("DELETE", MINE, bob)).status_code == 200
        assert (await client.get("/v1/users/me")).status_code == 200


@pytest.mark.attack("session")
async def test_another_site_ends_no_logins(world: World) -> None:
    async with world.client() as client:
        await signed_in(client, "admin")
        headers = {"Origin": "http://evil.example", "Sec-Fetch-Site": "cross-site"}
        assert (await client.delete(MINE, headers=headers)).status_code == 403
        assert (await client.get("/v1/users/me")).status_code == 200


@pytest.mark.attack("secret")
async def test_of_a_login_nothing_is_shown_that_could_be_used(world: World) -> None:
    async with world.client() as client:
        await signed_in(client, "admin")
        (session,) = world.store.snapshot.all(Session).values()
        shown = (await client.get(MINE)).text
    assert session.token_hash not in shown
    assert "hint" not in shown


async def test_who_must_change_the_password_may_end_logins_before(world: World) -> None:
    await world.user("ada", password=PASSWORD, require_password_change=True)
    async with world.client() as client:
        await signed_in(client, "ada")
        assert (await client.post("/v1/api-keys", json={"name": "x"})).status_code == 403
        assert (await client.delete(MINE)).status_code == 200


# --- what happens while a password is verified


def meanwhile(world: World, change: dict[str, Any]) -> AbstractContextManager[None]:
    """Within it, the account of the administrator changes right after a password was found to be good."""
    done = False

    async def hop(work: Callable[[], Any], **_: Any) -> Any:
        nonlocal done
        found = work()
        if not done:
            done = True
            await world.store.write(lambda tx: tx.change(User, world.admin.id, **change))
        return found

    return use_thread_runner(hop)


@pytest.mark.attack("session")
@pytest.mark.parametrize("change", [{"is_active": False}, {"hashed_password": "another"}], ids=str)
async def test_a_password_that_was_good_a_moment_ago_opens_nothing(
    world: World, change: dict[str, Any]
) -> None:
    async with world.client() as client:
        with meanwhile(world, change):
            answer = await client.post("/auth/login", data={"username": "admin", "password": PASSWORD})
        assert answer.status_code == 401
        assert not world.store.snapshot.all(Session)
        hashed = await hash_password(PASSWORD)
        await world.store.write(
            lambda tx: tx.change(User, world.admin.id, is_active=True, hashed_password=hashed)
        )
        with meanwhile(world, change):
            assert (await client.get("/v1/users", auth=("admin", PASSWORD))).status_code == 401


@pytest.mark.attack("session")
async def test_a_hash_that_is_renewed_brings_no_former_password_back(world: World) -> None:
    from argon2 import PasswordHasher

    old = PasswordHasher(time_cost=1, memory_cost=8, parallelism=1).hash(PASSWORD)
    await world.store.write(lambda tx: tx.change(User, world.admin.id, hashed_password=old))
    async with world.client() as client:
        with meanwhile(world, {"hashed_password": "another"}):
            answer = await client.post("/auth/login", data={"username": "admin", "password": PASSWORD})
    assert answer.status_code == 401
    assert world.store.snapshot.users[world.admin.id].hashed_password == "another"


@pytest.mark.attack("session")
async def test_of_two_changes_of_a_password_the_second_does_not_undo_the_first(world: World) -> None:
    body = {"current_password": PASSWORD, "new_password": "Other_3_words"}
    with meanwhile(world, {"hashed_password": "another"}):
        answer = await world.ask("POST", "/auth/update-password", world.admin, json=body)
    assert answer.status_code == 409
    assert world.store.snapshot.users[world.admin.id].hashed_password == "another"
