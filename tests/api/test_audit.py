"""The audit trail tells of every change and every attempt, of nothing else, and of no secret."""

from __future__ import annotations

import base64
import csv
import io
from typing import Any

import orjson
import pytest
import trio

from gpustack.api.audit_recorder import NO_ACCOUNT
from gpustack.api.request import ApiRequest
from gpustack.api.resource import all_routes
from gpustack.api.route import WORKERS, carry_out
from gpustack.domain.access import ApiKey, User
from gpustack.domain.audit import AuditEvent, AuditOutcome
from gpustack.domain.model import Model
from gpustack.server.audit_trail import AuditTrail
from gpustack.store.transaction import Tx

from .world import AWAY, PASSWORD, TOKEN, World

SECRET = "s3cr3t-of-somebody"
MODEL = {"name": "m", "source": "local_path", "local_path": "/m.gguf", "replicas": 0}
JOIN = {"name": "node", "worker_uuid": "u-1", "ip": "10.0.0.7"}


async def events(world: World, query: str = "") -> list[dict[str, Any]]:
    """The trail, oldest first."""
    await world.context.trail.flush()
    found: list[dict[str, Any]] = (await world.get(f"/v1/audit-events{query}"))["items"]
    return found[::-1]


def line(event: dict[str, Any]) -> str:
    """An event in short."""
    status = "" if event["outcome"] == "done" else f" {event['status']}"
    return f"{event['actor_name'] or '-'} {event['action']} {event['target_name'] or '-'} {event['outcome']}{status}"


async def test_a_deployment_leaves_a_trace_of_who_made_changed_and_ended_it(world: World) -> None:
    made = (await world.ask("POST", "/v1/models", world.admin, json=MODEL)).json()
    path = f"/v1/models/{made['id']}"
    world.clock.forward(1)
    await world.ask("PUT", path, world.admin, json={"replicas": 2, "name": "m"})
    world.clock.forward(1)
    await world.ask("DELETE", path, world.admin)
    created, changed, deleted = await events(world)
    assert [line(one) for one in (created, changed, deleted)] == [
        "admin model.create m done",
        "admin model.update m done",
        "admin model.delete m done",
    ]
    assert {one["target_id"] for one in (created, changed, deleted)} == {made["id"]}
    assert changed["details"] == {"changes": {"replicas": {"from": 0, "to": 2}}}
    assert created["details"]["fields"]["local_path"] == "/m.gguf"
    key = world.store.snapshot.find(ApiKey, user_id=world.admin.id)
    assert key is not None
    who = {name: changed[name] for name in ("actor_id", "actor_role", "means", "api_key_id", "address", "at")}
    assert who == {
        "actor_id": world.admin.id,
        "actor_role": "admin",
        "means": "key",
        "api_key_id": key.id,
        "address": AWAY,
        "at": "2026-01-02T03:04:06Z",
    }


async def test_a_program_on_the_servers_machine_is_told_apart(world: World) -> None:
    async with world.client(peer="127.0.0.1", host="localhost") as client:
        await client.post("/v1/models", json=MODEL)
    (event,) = await events(world)
    assert (event["means"], event["address"], event["actor_name"]) == ("local", "127.0.0.1", "admin")


@pytest.mark.attack("audit")
async def test_the_address_is_the_peers_whatever_a_header_says(world: World) -> None:
    forged = {"X-Forwarded-For": "8.8.8.8\x1b[31m", "Remote-Addr": "9.9.9.9"}
    async with world.client(world.admin, headers=forged) as client:
        await client.post("/v1/models", json=MODEL)
    (event,) = await events(world)
    assert event["address"] == AWAY
    assert event["details"]["claimed_address"] == r"8.8.8.8\x1b[31m"


UNSAFE = [route for route in all_routes() if route.method not in ("GET", "HEAD")]


@pytest.mark.attack("audit")
@pytest.mark.parametrize("route", UNSAFE, ids=lambda r: f"{r.method}-{r.path}")
async def test_no_attempt_without_a_key_goes_unnoticed(world: World, route: Any) -> None:
    answer = await world.ask(route.method, route.path.replace("{id}", "1"), json={})
    found = await events(world)
    if answer.status_code == 200 or not route.audit_action:
        # the callback of SAML tells of whom it lets in, and whom not, itself
        assert route.path in (
            "/auth/logout",
            "/proxy",
            "/v1/model-evaluations",
            "/v1/plans",
            "/auth/saml/callback",
        )
        return
    assert [(one["action"], one["status"], one["address"]) for one in found] == [
        (route.audit_action, answer.status_code, AWAY)
    ]
    assert found[0]["actor_id"] is None
    assert found[0]["outcome"] == ("refused" if answer.status_code in (401, 403) else "failed")


async def test_what_workers_say_and_what_is_only_read_is_not_told_of(world: World) -> None:
    worker, credential = await world.worker("node")
    path = f"/v1/workers/{worker.id}"
    for route in all_routes():
        if route.allow == WORKERS and route.path.startswith("/v1/workers/{id}/"):
            body = {"source": {"kind": "local_path", "local_path": "/m"}, "status": {}}
            answer = await world.ask(
                route.method, route.path.replace("{id}", str(worker.id)), credential, json=body
            )
            assert answer.status_code == 200, answer.text
    await world.get(path)
    await world.get("/v1/models")
    assert await events(world) == []


async def test_a_worker_that_joins_is_told_of_and_who_speaks_for_it_is_found_out(world: World) -> None:
    await world.ask("POST", "/v1/workers", TOKEN, json=JOIN)
    worker, _ = await world.worker("other")
    wrong = f"gpustack_worker_{worker.id}_wrong"
    await world.ask("POST", f"/v1/workers/{worker.id}/heartbeat", wrong, json={})
    joined, refused = await events(world)
    assert line(joined) == "- worker.join node done"
    assert (joined["actor_role"], joined["means"]) == ("joiner", "token")
    assert line(refused) == "other worker.heartbeat - refused 401"


@pytest.mark.attack("audit")
@pytest.mark.parametrize("how", ["form", "basic to read", "basic to change"])
async def test_who_tries_a_password_and_leaves_at_once_leaves_a_trace(world: World, how: str) -> None:
    """Before the password is looked at, and while it is."""
    basic = "Basic " + base64.b64encode(b"admin:wrong").decode()
    method, path = {"form": ("POST", "/auth/login"), "basic to read": ("GET", "/v1/users")}.get(
        how, ("POST", "/v1/users")
    )
    (route,) = [one for one in all_routes() if (one.method, one.path) == (method, path)]
    headers = {b"content-type": b"application/json"}
    if how != "form":
        headers[b"authorization"] = basic.encode()

    async def body() -> bytes:
        await trio.lowlevel.checkpoint()
        return orjson.dumps({"username": "admin", "password": "wrong"})

    ask = ApiRequest(
        method=method, path=path, header=headers.get, header_names=lambda: headers, peer=AWAY, body=body
    )
    with trio.CancelScope() as left:
        left.cancel()
        await carry_out(world.context, route, ask)
    found = await events(world)
    assert found and {(one["status"], one["outcome"], one["address"]) for one in found} == {
        (499, "failed", AWAY)
    }
    assert how == "form" or {one["actor_name"] for one in found} == {"admin"}


async def test_logins_leave_a_trace_and_so_does_their_end(world: World) -> None:
    async with world.client() as client:
        await client.post("/auth/login", data={"username": "admin", "password": "wrong"})
        await client.post("/auth/login", data={"username": SECRET, "password": "wrong"})
        await client.post("/auth/login", data={"username": "admin", "password": PASSWORD})
        await client.post("/auth/logout", json={})
        await client.post("/auth/logout", json={})
    found = await events(world)
    assert sorted(line(one) for one in found) == [
        f"{NO_ACCOUNT} auth.login - refused 401",
        "admin auth.login - done",
        "admin auth.login - refused 401",
        "admin auth.logout - done",
    ]
    assert {one["means"] for one in found} == {"password", "cookie"}
    assert SECRET not in orjson.dumps(found).decode()


@pytest.mark.attack("guessing")
async def test_guessing_leaves_a_trace_where_nothing_is_changed(world: World) -> None:
    async with world.client() as client:
        for _ in range(7):
            await client.get("/v1/users", auth=("admin", "wrong"))
    found = await events(world)
    assert [line(one) for one in found] == [
        "admin auth.login - refused 401",
        "admin auth.login - refused 429",
    ]
    world.clock.forward(61)
    world.context.trail._tell_of_repeats(over=False)
    counts = [one["details"].get("count") for one in await events(world)]
    assert counts == [None, None, 4, 1]


@pytest.mark.attack("flood")
async def test_a_flood_of_refusals_fills_no_disk(world: World) -> None:
    """Many names from many addresses: what is stored of it is bounded, and the rest is counted."""
    trail, now = world.context.trail, world.clock.now
    for number in range(5000):
        trail.add_counted(
            AuditEvent(
                at=now,
                action="auth.login",
                outcome=AuditOutcome.REFUSED,
                status=401,
                address=f"10.{number % 7}.{number // 250}.{number % 250}",
            )
        )
    world.clock.forward(61)
    trail._tell_of_repeats(over=False)
    await trail.flush()
    total = (await world.get("/v1/audit-events"))["pagination"]["total"]
    assert total <= 210
    stored = [one for page in (1, 2, 3) for one in await events(world, f"?page={page}")]
    assert sum(one["details"].get("count", 1) for one in stored) == 5000


@pytest.mark.attack("flood")
async def test_somebody_who_changes_the_own_name_for_ever_fills_no_disk(world: World) -> None:
    ada = await world.user("ada")
    for number in range(130):
        await world.ask("PUT", "/v1/users/me", ada, json={"full_name": str(number)})
    world.clock.forward(61)
    world.context.trail._tell_of_repeats(over=False)
    first, second = await events(world, "?page=2"), await events(world)
    counts = [one["details"].get("count", 1) for one in (*first, *second)]
    assert sum(counts) == 130
    assert len(counts) == 122


@pytest.mark.attack("secret")
async def test_no_secret_is_in_the_trail(world: World) -> None:
    body = {
        **MODEL,
        "backend": "llama-box",
        "env": {"HF_TOKEN": SECRET, "PLAIN": SECRET},
        "backend_parameters": ["--api-key", SECRET, SECRET, f"--token={SECRET}", "--ctx-size=1"],
        "description": f"see https://me:{SECRET}@example.com",
    }
    made = await world.ask("POST", "/v1/models", world.admin, json=body)
    path = f"/v1/models/{made.json()['id']}" if made.status_code == 200 else "/v1/models/1"
    await world.ask("PUT", path, world.admin, json={"env": {"HF_TOKEN": SECRET + "2"}})
    user = {"username": "bob", "password": f"{SECRET}_A1"}
    bob = (await world.ask("POST", "/v1/users", world.admin, json=user)).json()
    await world.ask("PUT", f"/v1/users/{bob['id']}", world.admin, json={"password": f"{SECRET}_B2"})
    async with world.client() as client:
        await client.post("/auth/login", data={"username": "bob", "password": f"{SECRET}_B2"})
        cookie = client.cookies["gpustack_session"]
        change = {"current_password": f"{SECRET}_B2", "new_password": f"{SECRET}_C3"}
        await client.post("/auth/update-password", json=change)
    key = (await world.ask("POST", "/v1/api-keys", world.admin, json={"name": "k"})).json()["value"]
    await world.ask("POST", "/v1/users", f"Bearer {SECRET}", json={})
    joined = (await world.ask("POST", "/v1/workers", TOKEN, json=JOIN)).json()
    found = await events(world)
    text = orjson.dumps(found).decode()
    assert len(found) >= 8
    for secret in (SECRET, cookie, key, TOKEN, joined["credential"], joined["forward_key"]):
        assert secret not in text
    created = next(one for one in found if one["action"] == "model.create")
    if created["outcome"] == "done":
        assert created["details"]["fields"]["env"] == {"HF_TOKEN": "***", "PLAIN": "***"}
        assert "--ctx-size=1" in text


async def test_a_refused_change_is_told_of_as_refused_alone(world: World) -> None:
    ada = await world.user("ada")
    model = await world.model("m")
    assert (await world.ask("DELETE", f"/v1/models/{model.id}", ada)).status_code == 403
    assert (await world.ask("DELETE", f"/v1/users/{world.admin.id}", world.admin)).status_code == 409
    assert [line(one) for one in await events(world)] == [
        "ada model.delete m refused 403",
        "admin user.delete admin failed 409",
    ]
    assert world.store.snapshot.get(Model, model.id) is not None


@pytest.mark.attack("audit")
async def test_who_is_deleted_leaves_the_trail_as_it_was(world: World) -> None:
    ada = await world.user("ada", is_admin=True)
    await world.ask("POST", "/v1/models", ada, json=MODEL)
    await world.ask("DELETE", f"/v1/users/{ada.id}", world.admin)
    assert world.store.snapshot.get(User, ada.id) is None
    assert [line(one) for one in await events(world, f"?actor={ada.id}")] == ["ada model.create m done"]


@pytest.mark.attack("audit")
@pytest.mark.parametrize("method", ["POST", "PUT", "PATCH", "DELETE"])
@pytest.mark.parametrize("path", ["/v1/audit-events", "/v1/audit-events/1", "/v1/audit-events/export"])
async def test_nobody_changes_the_trail(world: World, method: str, path: str) -> None:
    await world.ask("POST", "/v1/models", world.admin, json=MODEL)
    assert (await world.ask(method, path, world.admin, json={})).status_code in (404, 405)
    assert len(await events(world)) == 1


@pytest.mark.attack("access")
@pytest.mark.parametrize("path", ["/v1/audit-events", "/v1/audit-events/export"])
async def test_only_administrators_read_the_trail(world: World, path: str) -> None:
    ada = await world.user("ada")
    _, credential = await world.worker("node")
    for who in (ada, credential, TOKEN, None):
        assert (await world.ask("GET", path, who)).status_code in (401, 403)


async def test_the_trail_is_searched_by_everything_it_holds(world: World) -> None:
    ada = await world.user("ada", is_admin=True)
    made = (await world.ask("POST", "/v1/models", ada, json=MODEL)).json()
    world.clock.forward(60)
    await world.ask("POST", "/v1/api-keys", world.admin, json={"name": "50%_off"})
    await world.ask("POST", "/v1/models", world.admin, json=MODEL)
    wanted = {
        "actor=ada": 1,
        f"actor={ada.id}": 1,
        "action=model.create": 2,
        "action=model.": 2,
        "action=model": 0,
        "outcome=failed": 1,
        "target_type=api-key": 1,
        f"target_type=model&target_id={made['id']}": 1,
        "means=key": 3,
        "means=local": 0,
        f"address={AWAY}": 3,
        "from=2026-01-02T03:05:00Z": 2,
        "to=2026-01-02T03:05:00Z": 1,
        "search=50%25_": 1,
        "search=0%25o": 0,
        "search=API-KEY": 1,
        "perPage=1": 1,
        "perPage=2&page=2": 1,
    }
    found = {query: len(await events(world, f"?{query}")) for query in wanted}
    assert found == wanted
    page = await world.get("/v1/audit-events?perPage=2&page=2")
    assert page["pagination"] == {"page": 2, "perPage": 2, "total": 3, "totalPage": 2}


@pytest.mark.parametrize(
    "query", ["outcome=well", "from=yesterday", "target_id=x", "perPage=-1", "page=0", "page=99999999"]
)
async def test_a_search_that_means_nothing_is_refused(world: World, query: str) -> None:
    assert (await world.ask("GET", f"/v1/audit-events?{query}", world.admin)).status_code == 422


async def test_the_export_is_whole_and_told_of_itself(world: World) -> None:
    def fill(tx: Tx) -> None:
        for number in range(1203):
            at = world.clock.now
            tx.insert(AuditEvent(at=at, action=f"tests.{number}", outcome=AuditOutcome.DONE, status=200))

    await world.store.write(fill)
    answer = await world.ask("GET", "/v1/audit-events/export?action=tests.", world.admin)
    assert answer.headers["content-type"] == "application/x-ndjson"
    lines = [orjson.loads(one)["action"] for one in answer.content.splitlines()]
    assert lines == [f"tests.{number}" for number in reversed(range(1203))]
    (event,) = await events(world, "?action=audit.export")
    assert event["details"] == {"format": "ndjson", "filters": {"action": "tests."}}
    assert (await world.ask("GET", "/v1/audit-events/export?format=xls", world.admin)).status_code == 422


@pytest.mark.attack("audit")
@pytest.mark.parametrize("name", ["=1+1", "+1", "-1", "@SUM(A1)", "=cmd|' /C calc'!A0"])
async def test_a_name_is_no_formula_in_a_spreadsheet(world: World, name: str) -> None:
    await world.ask("POST", "/v1/models", world.admin, json={**MODEL, "name": name})
    answer = await world.ask("GET", "/v1/audit-events/export?format=csv&action=model.", world.admin)
    heads, row = csv.reader(io.StringIO(answer.text))
    assert row[heads.index("target_name")] == f"'{name}"
    assert heads[:4] == ["id", "at", "action", "outcome"]


async def test_a_client_that_leaves_an_export_stops_it(world: World, address: tuple[str, int]) -> None:
    def fill(tx: Tx) -> None:
        for number in range(2000):
            details = {"text": "x" * 1000}
            tx.insert(
                AuditEvent(
                    at=world.clock.now,
                    action=f"tests.{number}",
                    outcome=AuditOutcome.DONE,
                    status=200,
                    details=details,
                )
            )

    await world.store.write(fill)
    stream = await trio.open_tcp_stream(*address)
    head = "GET /v1/audit-events/export HTTP/1.1\r\nhost: x\r\nauthorization: Bearer "
    await stream.send_all(f"{head}{world.keys[world.admin.id]}\r\n\r\n".encode())
    assert (await stream.receive_some(1000)).startswith(b"HTTP/1.1 200")
    await stream.aclose()
    assert (await world.ask("GET", "/v1/audit-events?perPage=1", world.admin)).status_code == 200


async def test_a_handler_that_breaks_is_told_of(world: World) -> None:
    broken = world.rebuilt(rng=None)
    assert (await broken.ask("POST", "/v1/api-keys", world.admin, json={"name": "k"})).status_code == 500
    assert [line(one) for one in await events(broken)] == ["admin api-key.create - failed 500"]


def test_a_trail_says_what_it_does() -> None:
    trail = AuditTrail(None, None, lambda: 0.0)  # type: ignore[arg-type]
    trail.add(AuditEvent(at=None, action="a.b", outcome=AuditOutcome.DONE, status=200))  # type: ignore[arg-type]
    assert repr(trail) == "<AuditTrail: 1 events to store, 0 kinds counted>"
