"""Who may do what: every route refuses everyone it does not name, and no page of another site acts for anybody."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import pytest

from gpustack.api.context import AccessRules
from gpustack.api.resource import all_routes
from gpustack.api.route import ApiRoute
from gpustack.domain.access import Role, Session, User
from gpustack.domain.model import ModelAccess
from gpustack.identity.sessions import make_session

from .world import PASSWORD, TOKEN, World

ROUTES = all_routes()


async def bearers(world: World) -> dict[Role, str]:
    user = await world.user("ada")
    _, credential = await world.worker("node")
    return {
        Role.ADMIN: world.keys[world.admin.id],
        Role.USER: world.keys[user.id],
        Role.WORKER: credential,
        Role.JOINER: TOKEN,
    }


@pytest.mark.attack("access")
async def test_every_route_refuses_all_roles_it_does_not_name(world: World) -> None:
    roles = await bearers(world)
    wrong = []
    for route in ROUTES:
        path = route.path.replace("{id}", "999").replace("{name}", "x")
        for role, bearer in roles.items():
            if route.allow is None or role in route.allow:
                continue
            answer = await world.ask(route.method, path, bearer, json={})
            if answer.status_code != 403:
                wrong.append((role, route.method, path, answer.status_code))
    assert not wrong


@pytest.mark.attack("access")
@pytest.mark.parametrize(
    "route", [r for r in ROUTES if r.allow is not None], ids=lambda r: f"{r.method}-{r.path}"
)
async def test_without_credentials_a_route_is_closed(world: World, route: ApiRoute) -> None:
    path = route.path.replace("{id}", "1")
    answer = await world.ask(route.method, path, json={})
    assert answer.status_code == 401
    document = answer.json()
    assert (
        document.get("message", document.get("error", {}).get("message"))
        == "Invalid authentication credentials"
    )


@pytest.mark.attack("access")
@pytest.mark.parametrize(
    "bearer",
    ["nonsense", "gpustack_0123456789abcdef_" + "0" * 32, "gpustack_worker_1_abc", TOKEN + "x", "x" * 10_000],
)
async def test_a_wrong_bearer_is_nobody(world: World, bearer: str) -> None:
    assert (await world.ask("GET", "/v1/users", bearer)).status_code == 401


@pytest.mark.attack("access")
async def test_a_key_stops_working_with_its_deletion(world: World) -> None:
    ada = await world.user("ada")
    keys = await world.get("/v1/api-keys", ada)
    assert (await world.ask("DELETE", f"/v1/api-keys/{keys['items'][0]['id']}", ada)).status_code == 200
    assert (await world.ask("GET", "/v1/users/me", ada)).status_code == 401


async def test_name_and_password_are_credentials_too(world: World) -> None:
    async with world.client() as client:
        assert (await client.get("/v1/users", auth=("admin", PASSWORD))).status_code == 200
        assert (await client.get("/v1/users", auth=("admin", "wrong"))).status_code == 401
        assert (await client.get("/v1/users", auth=("nobody", PASSWORD))).status_code == 401


@pytest.mark.attack("guessing")
async def test_guessing_by_basic_credentials_is_limited(world: World) -> None:
    async with world.client() as client:
        for _ in range(5):
            assert (await client.get("/v1/users", auth=("admin", "wrong"))).status_code == 401
        answer = await client.get("/v1/users", auth=("admin", PASSWORD))
        assert answer.status_code == 429
        assert int(answer.headers["Retry-After"]) == 300
        world.clock.forward(301)
        assert (await client.get("/v1/users", auth=("admin", PASSWORD))).status_code == 200


@pytest.mark.attack("access")
async def test_the_token_joins_and_does_nothing_else(world: World) -> None:
    async with world.client() as client:
        basic = ("system/worker/10.0.0.7", TOKEN)
        body = {"name": "node", "worker_uuid": "u-1"}
        assert (await client.post("/v1/workers", json=body, auth=basic)).status_code == 200
        assert (await client.get("/v1/workers", auth=basic)).status_code == 403
    assert (await world.ask("GET", "/v1/models", TOKEN)).status_code == 403


# --- the rule for programs on this machine, and what may not use it


HERE = "127.0.0.1"
LOCAL_CASES: list[tuple[str, dict[str, Any], dict[str, str], str, int]] = [
    ("a program on this machine", {}, {}, "GET", 200),
    ("over IPv6", {"peer": "::1", "host": "[::1]"}, {}, "GET", 200),
    ("IPv4 inside IPv6", {"peer": "::ffff:127.0.0.1"}, {}, "GET", 200),
    ("with a port in the host", {"host": "localhost:8080"}, {}, "GET", 200),
    ("it may write", {}, {}, "POST", 200),
    ("from elsewhere", {"peer": "10.0.0.9"}, {}, "GET", 401),
    ("a header cannot claim to be here", {"peer": "10.0.0.9"}, {"Remote-Addr": HERE}, "GET", 401),
    ("forwarded by a proxy", {}, {"X-Forwarded-For": "8.8.8.8"}, "GET", 401),
    ("forwarded, the new way", {}, {"Forwarded": "for=8.8.8.8"}, "GET", 401),
    ("forwarded, with another header", {}, {"X-Real-IP": "8.8.8.8"}, "GET", 401),
    ("an empty forwarding header is one", {}, {"X-Forwarded-For": ""}, "GET", 401),
    ("a foreign name that points here", {"host": "evil.example"}, {}, "GET", 401),
    ("a name that only begins so", {"host": "localhost.evil.example"}, {}, "GET", 401),
    ("a page of another site", {}, {"Origin": "http://evil.example"}, "POST", 403),
    ("a page without an origin", {}, {"Origin": "null"}, "POST", 403),
    ("a page on another port", {}, {"Origin": "http://localhost:3000"}, "POST", 403),
    ("a browser says cross-site", {}, {"Sec-Fetch-Site": "cross-site"}, "POST", 403),
    ("a browser says same-site", {}, {"Sec-Fetch-Site": "same-site"}, "POST", 403),
    ("a form that says nothing", {}, {"Content-Type": "text/plain"}, "POST", 403),
    ("our own page", {}, {"Origin": "http://localhost", "Sec-Fetch-Site": "same-origin"}, "POST", 200),
    (
        "a key of ours that is no good",
        {},
        {"Authorization": f"Bearer gpustack_{'0' * 16}_{'0' * 32}"},
        "GET",
        401,
    ),
    ("a stand-in for a key", {}, {"Authorization": "Bearer none"}, "GET", 200),
    ("what is no stand-in", {}, {"Authorization": "Bearer sk-guess"}, "GET", 401),
    ("root", {"owner": 0}, {}, "POST", 200),
    ("another user", {"owner": 1001}, {}, "POST", 403),
    ("another user reads what is for administrators", {"owner": 1001}, {}, "GET", 403),
    ("nobody knows who", {"owner": None}, {}, "POST", 403),
    ("a proxy's own header", {}, {"X-Forwarded-Whatever": "1"}, "GET", 401),
    ("another site does not even read", {}, {"Sec-Fetch-Site": "cross-site"}, "GET", 403),
]


@pytest.mark.attack("cross-site")
@pytest.mark.parametrize(
    ("_what", "place", "headers", "method", "status"), LOCAL_CASES, ids=lambda v: str(v)[:40]
)
async def test_this_machine_is_trusted_with_care(
    world: World, _what: str, place: dict[str, Any], headers: dict[str, str], method: str, status: int
) -> None:
    async with world.client(**{"peer": HERE, "host": "localhost", **place}) as client:
        if method == "GET":
            answer = await client.get("/v1/users", headers=headers)
        else:
            body = b'{"name": "made here"}'
            headers = {"Content-Type": "application/json", **headers}
            answer = await client.post("/v1/api-keys", content=body, headers=headers)
        assert answer.status_code == status, answer.text


@pytest.mark.attack("access")
@pytest.mark.parametrize("owner", [1001, None], ids=str)
async def test_another_user_of_the_machine_changes_nothing_whatever_the_route(
    world: World, owner: int | None
) -> None:
    """And is told both ways out."""
    wrong = []
    async with world.client(peer=HERE, host="localhost", owner=owner) as client:
        for route in ROUTES:
            if route.allow is None or (route.method == "GET" and Role.USER in route.allow):
                continue
            path = route.path.replace("{id}", "1").replace("{name}", "x").replace("{session}", "1")
            answer = await client.request(route.method, path, json={})
            told = answer.text
            if answer.status_code != 403 or "sudo" not in told or "GPUSTACK_API_KEY" not in told:
                wrong.append((route.method, path, answer.status_code, told))
    assert not wrong


async def test_another_user_of_the_machine_sees_the_models_that_are_for_all_users(world: World) -> None:
    await world.model("for-all")
    await world.model("for-one", access=ModelAccess.ALLOWED_USERS, allowed_user_ids=(world.admin.id,))
    async with world.client(peer=HERE, host="localhost", owner=1001) as client:
        names = [model["name"] for model in (await client.get("/v1/models")).json()["items"]]
        own = await client.get("/v1/users/me")
    assert names == ["for-all"]
    assert own.status_code == 401, "a page asks for a login then"
    assert "GPUSTACK_API_KEY" in own.json()["message"]


async def test_what_another_user_of_the_machine_tried_is_in_the_audit_trail(world: World) -> None:
    async with world.client(peer=HERE, host="localhost", owner=1001) as client:
        await client.post("/v1/users", json={"username": "mole", "password": PASSWORD, "is_admin": True})
    await world.context.trail.flush()
    (event,) = (await world.get("/v1/audit-events"))["items"]
    assert (event["actor_name"], event["means"], event["outcome"]) == (
        "system/local/1001",
        "local",
        "refused",
    )


async def test_the_rule_can_be_switched_off(world: World) -> None:
    strict = world.rebuilt(rules=AccessRules(force_auth_localhost=True))
    async with strict.client(peer=HERE, host="localhost") as client:
        assert (await client.get("/v1/users")).status_code == 401


# --- cookies


async def with_cookie(world: World, user: User) -> dict[str, str]:
    token, session = make_session(
        user.id, keys=world.context.keys, now=world.clock.now, rng=world.context.rng
    )
    await world.store.write(lambda tx: tx.insert(session))
    return {"Cookie": f"gpustack_session={token}"}


COOKIE_CASES: list[tuple[str, dict[str, str], int]] = [
    ("our own page", {"Origin": "http://gpustack.example"}, 200),
    ("our own page behind TLS", {"Origin": "https://gpustack.example"}, 200),
    ("a program says nothing", {}, 200),
    ("another site", {"Origin": "http://evil.example"}, 403),
    ("another port", {"Origin": "http://gpustack.example:81"}, 403),
    ("a sandboxed frame", {"Origin": "null"}, 403),
    ("the browser knows better", {"Sec-Fetch-Site": "cross-site", "Origin": "http://gpustack.example"}, 403),
    ("a form without origin", {"Content-Type": "text/plain"}, 403),
]


@pytest.mark.attack("cross-site")
@pytest.mark.parametrize(("_what", "headers", "status"), COOKIE_CASES, ids=lambda v: str(v)[:40])
async def test_a_cookie_changes_things_only_from_our_own_pages(
    world: World, _what: str, headers: dict[str, str], status: int
) -> None:
    cookie = await with_cookie(world, world.admin)
    headers = {"Content-Type": "application/json", **cookie, **headers}
    async with world.client() as client:
        answer = await client.post("/v1/api-keys", content=b'{"name": "x"}', headers=headers)
    assert answer.status_code == status, answer.text


@pytest.mark.attack("session")
async def test_a_stale_cookie_does_not_hide_a_good_key(world: World) -> None:
    async with world.client(world.admin) as client:
        headers = {"Cookie": "gpustack_session=gone"}
        assert (await client.get("/v1/users", headers=headers)).status_code == 200


async def test_a_login_in_use_is_prolonged_before_it_ends(world: World) -> None:
    cookie = await with_cookie(world, world.admin)
    async with world.client() as client:
        assert "set-cookie" not in (await client.get("/v1/users", headers=cookie)).headers
        world.clock.forward(110 * 60)
        renewed = await client.get("/v1/users", headers=cookie)
        assert "Max-Age=7200" in renewed.headers["set-cookie"]
        world.clock.forward(60 * 60)
        assert (await client.get("/v1/users", headers=cookie)).status_code == 200
        world.clock.forward(60 * 60)
        assert (await client.get("/v1/users", headers=cookie)).status_code == 401
    assert len(world.store.snapshot.all(Session)) == 1


# --- a password that must be changed first


@pytest.mark.attack("access")
async def test_before_the_password_is_changed_nothing_is_managed(world: World) -> None:
    new = await world.user("new", password=PASSWORD, is_admin=True, require_password_change=True)
    refused = await world.ask("POST", "/v1/users", new, json={"username": "x", "password": PASSWORD})
    assert refused.status_code == 403
    assert "/auth/update-password" in refused.json()["message"]
    assert (await world.ask("GET", "/v1/users", new)).status_code == 200
    assert (await world.ask("PUT", "/v1/users/me", new, json={"full_name": "N"})).status_code == 200
    passwords = {"current_password": PASSWORD, "new_password": "Other_3_words"}
    assert (await world.ask("POST", "/auth/update-password", new, json=passwords)).status_code == 200
    answer = await world.ask("POST", "/v1/users", new, json={"username": "x", "password": PASSWORD})
    assert answer.status_code == 200


async def test_this_machine_is_not_held_up_by_a_password_to_change(world: World) -> None:
    await world.store.write(lambda tx: tx.change(User, world.admin.id, require_password_change=True))
    async with world.client(peer=HERE, host="localhost") as client:
        assert (await client.post("/v1/api-keys", json={"name": "x"})).status_code == 200
        me = (await client.get("/v1/users/me")).json()
    assert me["require_password_change"] is False, (
        "or the console would ask for a password that nobody typed here"
    )
    assert (await world.get(f"/v1/users/{world.admin.id}"))["require_password_change"] is True


# --- who is shut out while it speaks


@pytest.mark.attack("session")
@pytest.mark.parametrize("change", [{"is_active": False}, {"is_admin": False}], ids=str)
async def test_who_is_shut_out_while_its_body_comes_writes_nothing(
    world: World, change: dict[str, bool]
) -> None:
    boss = await world.user("boss", is_admin=True)

    async def body() -> AsyncIterator[bytes]:
        yield b'{"username": "mole", "is_admin": true, '
        await world.store.write(lambda tx: tx.change(User, boss.id, **change))
        yield b'"password": "%b"}' % PASSWORD.encode()

    async with world.client(boss) as client:
        answer = await client.post("/v1/users", content=body())
    assert answer.status_code == 401
    assert world.store.snapshot.find(User, username="mole") is None
