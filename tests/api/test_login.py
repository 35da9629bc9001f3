"""Signing in, out, and choosing another password."""

from __future__ import annotations

from typing import Any

import pytest

from gpustack.api.context import AccessRules
from gpustack.domain.access import Session, User

from .world import PASSWORD, World

GOOD = {"username": "admin", "password": PASSWORD}


async def login(client: Any, **more: Any) -> Any:
    return await client.post("/auth/login", **{"data": GOOD, **more})


async def test_a_form_signs_in_and_the_cookie_is_kept_from_scripts_and_other_sites(world: World) -> None:
    async with world.client() as client:
        answer = await login(client)
        assert answer.status_code == 200
        assert answer.json() is None
        parts = answer.headers["set-cookie"].split("; ")
        assert parts[0].startswith("gpustack_session=")
        assert set(parts[1:]) == {"Path=/", "Max-Age=7200", "HttpOnly", "SameSite=Lax"}
        assert (await client.get("/v1/users/me")).json()["username"] == "admin"


async def test_json_signs_in_too(world: World) -> None:
    async with world.client() as client:
        assert (await login(client, data=None, json=GOOD)).status_code == 200


async def test_under_tls_the_cookie_is_secure(world: World) -> None:
    secure = world.rebuilt(rules=AccessRules(tls=True, session_minutes=5))
    async with secure.client() as client:
        cookie = (await login(client)).headers["set-cookie"]
    assert cookie.endswith("; Secure")
    assert "Max-Age=300" in cookie


@pytest.mark.attack("secret")
async def test_of_the_login_only_a_hash_is_kept(world: World) -> None:
    async with world.client() as client:
        token = (await login(client)).cookies["gpustack_session"]
    kept = next(iter(world.store.snapshot.all(Session).values()))
    assert len(token) == 64
    assert token not in repr(kept)
    assert kept.token_hash == world.context.keys.session_hash(token)


@pytest.mark.attack("session")
async def test_each_login_gets_a_new_id_and_voids_the_one_before(world: World) -> None:
    async with world.client() as client:
        first = (await login(client)).cookies["gpustack_session"]
        second = (await login(client)).cookies["gpustack_session"]
        assert first != second
        client.cookies.clear()
        answer = await client.get("/v1/users/me", headers={"Cookie": f"gpustack_session={first}"})
        assert answer.status_code == 401


@pytest.mark.attack("session")
async def test_signing_out_ends_the_login_on_the_server(world: World) -> None:
    async with world.client() as client:
        token = (await login(client)).cookies["gpustack_session"]
        answer = await client.post("/auth/logout")
        assert answer.status_code == 200
        assert "Max-Age=0" in answer.headers["set-cookie"]
        stolen = await client.get("/v1/users/me", headers={"Cookie": f"gpustack_session={token}"})
        assert stolen.status_code == 401
        assert (await client.post("/auth/logout")).status_code == 200


@pytest.mark.attack("guessing")
@pytest.mark.parametrize(
    ("name", "password"),
    [("admin", "wrong"), ("nobody", PASSWORD), ("admin", ""), ("gone", PASSWORD), ("sso", "")],
)
async def test_all_failed_logins_look_the_same(world: World, name: str, password: str) -> None:
    await world.user("gone", password=PASSWORD, is_active=False)
    await world.user("sso")
    async with world.client() as client:
        answer = await login(client, data={"username": name, "password": password})
    assert answer.status_code == 401
    assert answer.json() == {
        "code": 401,
        "reason": "Unauthorized",
        "message": "Incorrect username or password",
    }


@pytest.mark.attack("guessing")
async def test_guessing_is_limited_for_known_and_unknown_names_alike(world: World) -> None:
    for name in ("admin", "nobody"):
        async with world.client() as client:
            for _ in range(5):
                await login(client, data={"username": name, "password": "wrong"})
            answer = await login(client, data={"username": name, "password": PASSWORD})
            assert answer.status_code == 429
            assert "Retry-After" in answer.headers
    async with world.client(peer="10.0.0.10") as client:
        assert (await login(client)).status_code == 200


@pytest.mark.attack("cross-site")
@pytest.mark.parametrize(
    "headers", [{"Origin": "http://evil.example"}, {"Sec-Fetch-Site": "cross-site"}, {"Origin": "null"}]
)
async def test_another_site_cannot_log_its_visitor_in_or_out(world: World, headers: dict[str, str]) -> None:
    async with world.client() as client:
        assert (await login(client, headers=headers)).status_code == 403
        await login(client)
        assert (await client.post("/auth/logout", headers=headers)).status_code == 403
        assert (await client.get("/v1/users/me")).status_code == 200


@pytest.mark.attack("parser")
@pytest.mark.parametrize(
    ("body", "kind", "status"),
    [
        (b"username=admin", "application/x-www-form-urlencoded", 422),
        (b"", "application/x-www-form-urlencoded", 422),
        (b"{", "application/json", 400),
        (b'{"username": 1, "password": []}', "application/json", 422),
        (b"\xff\xfe", "application/json", 400),
        (b"\xff=\xfe", "application/x-www-form-urlencoded", 400),
        (b"x", "multipart/form-data; boundary=x", 400),
        (b"&".join(b"a=1" for _ in range(30)), "application/x-www-form-urlencoded", 400),
    ],
)
async def test_a_login_that_cannot_be_read_is_refused(
    world: World, body: bytes, kind: str, status: int
) -> None:
    async with world.client() as client:
        answer = await client.post("/auth/login", content=body, headers={"Content-Type": kind})
    assert answer.status_code == status, answer.text


async def test_logins_that_are_over_are_swept_out(world: World) -> None:
    async with world.client() as client:
        await login(client)
    world.clock.forward(3 * 3600)
    async with world.client() as client:
        await login(client)
    assert len(world.store.snapshot.all(Session)) == 1


@pytest.mark.attack("session")
async def test_another_password_ends_all_other_logins(world: World) -> None:
    async with world.client() as here, world.client() as elsewhere:
        await login(here)
        await login(elsewhere)
        passwords = {"current_password": PASSWORD, "new_password": "Other_3_words"}
        assert (await here.post("/auth/update-password", json=passwords)).status_code == 200
        assert (await here.get("/v1/users/me")).status_code == 200
        assert (await elsewhere.get("/v1/users/me")).status_code == 401
        assert (await login(elsewhere)).status_code == 401
        answer = await login(elsewhere, data={"username": "admin", "password": "Other_3_words"})
        assert answer.status_code == 200


@pytest.mark.parametrize(
    ("current", "new", "message"),
    [
        ("wrong", "Other_3_words", "Incorrect current password"),
        (PASSWORD, "other_3_words", "The password must contain an uppercase letter"),
        (PASSWORD, "Other3words", "The password must contain one of !@#$%^&*_+"),
        (PASSWORD, PASSWORD, "The new password must not be the current one"),
    ],
)
async def test_another_password_must_be_good_and_the_old_one_known(
    world: World, current: str, new: str, message: str
) -> None:
    body = {"current_password": current, "new_password": new}
    answer = await world.ask("POST", "/auth/update-password", world.admin, json=body)
    assert (answer.status_code, answer.json()["message"]) == (422, message)


async def test_who_is_proved_elsewhere_has_no_password_to_change(world: World) -> None:
    sso = await world.user("sso")
    body = {"current_password": "", "new_password": "Other_3_words"}
    assert (await world.ask("POST", "/auth/update-password", sso, json=body)).status_code == 400


async def test_a_hash_of_former_costs_is_renewed_at_login(world: World) -> None:
    from argon2 import PasswordHasher

    old = PasswordHasher(time_cost=1, memory_cost=8, parallelism=1).hash(PASSWORD)
    await world.store.write(lambda tx: tx.change(User, world.admin.id, hashed_password=old))
    async with world.client() as client:
        assert (await login(client)).status_code == 200
    now = world.store.snapshot.users[world.admin.id].hashed_password
    assert now != old
    assert "m=19456" in now


async def test_a_short_password_that_was_chosen_before_still_lets_in_and_is_told_in_the_log(
    world: World, caplog: pytest.LogCaptureFixture
) -> None:
    await world.user("ada", password="Old_1!")
    async with world.client() as client:
        assert (await login(client, data={"username": "ada", "password": "Old_1!"})).status_code == 200
    assert "A password has fewer than 8 characters: user=ada" in caplog.text
    assert "Old_1!" not in caplog.text
