"""What one party may take of another: worker of worker, user of user, joiner of the cluster, anybody of the server."""

from __future__ import annotations

from typing import Any

import orjson
import pytest
import trio
import trio.testing

from gpustack.api.app import LARGEST_FORM
from gpustack.api.resource import all_routes
from gpustack.api.route import ApiRoute
from gpustack.api.throttle import LoginThrottle
from gpustack.api.worker_endpoint import is_worker_request
from gpustack.domain.access import KeyScope, Role, Session
from gpustack.domain.artifact import ModelFile
from gpustack.domain.worker import Worker
from gpustack.errors import TooManyRequests
from gpustack.http1.head import RequestHead, parse_request_head

from .world import PASSWORD, SOURCE, TOKEN, World

ROUTES = all_routes()
OF_WORKERS = [
    route for route in ROUTES if route.allow and Role.WORKER in route.allow and "{id}" in route.path
]
JOIN = {"name": "node", "worker_uuid": "u-1", "ip": "10.0.0.7"}


def head_of(route: ApiRoute) -> RequestHead:
    line = f"{route.method} {route.path.replace('{id}', '7')} HTTP/1.1\r\nhost: x\r\n\r\n"
    head = parse_request_head(line.encode())
    assert isinstance(head, RequestHead)
    return head


async def belongings(world: World, worker: Worker) -> dict[str, int]:
    """Something of each kind that a worker has, by path."""
    model = await world.model(f"model-of-{worker.name}")
    instance = await world.instance(model, f"{model.name}-0", worker)
    file = await world.store.write(
        lambda tx: tx.insert(ModelFile(worker_id=worker.id, source=SOURCE, source_index=SOURCE.index))
    )
    return {"workers": worker.id, "model-instances": instance.id, "model-files": file.id}


@pytest.mark.attack("worker")
@pytest.mark.parametrize("route", OF_WORKERS, ids=lambda r: f"{r.method}-{r.path}")
async def test_a_worker_neither_speaks_for_another_nor_looks_at_it(world: World, route: ApiRoute) -> None:
    first, _ = await world.worker("first")
    _, credential = await world.worker("second")
    theirs = await belongings(world, first)
    path = route.path.replace("{id}", str(theirs[route.path.split("/")[2]]))
    before = world.store.snapshot.tables
    bodies: dict[str, Any] = {
        "status": {"status": {}},
        "files": {"source": {"kind": "local_path", "local_path": "/m.gguf"}},
        "report": {"state": "error", "gone": True},
    }
    body = bodies.get(path.rsplit("/", 1)[1], {})
    answer = await world.ask(route.method, path, credential, json=body)
    assert answer.status_code in (403, 404), answer.text
    assert world.store.snapshot.tables == before


@pytest.mark.attack("worker")
async def test_lists_show_a_worker_only_its_own(world: World) -> None:
    first, _ = await world.worker("first")
    second, credential = await world.worker("second")
    theirs, own = await belongings(world, first), await belongings(world, second)
    for kind, key in own.items():
        ids = [item["id"] for item in (await world.get(f"/v1/{kind}?perPage=-1", credential))["items"]]
        assert ids == [key]
        assert theirs[kind] not in ids


def test_what_workers_post_all_the_time_is_claimed_by_the_core() -> None:
    routes = [route for route in ROUTES if route.allow == frozenset({Role.WORKER})]
    assert routes
    assert all(is_worker_request(head_of(route)) for route in routes)


@pytest.mark.attack("smuggling")
@pytest.mark.parametrize(
    "odd",
    [
        {"ip": "a b"},
        {"ip": "127.0.0.1\r\nx: y"},
        {"ip": "127.0.0.1/v1/users"},
        {"ip": "x@127.0.0.1"},
        {"ip": "a" * 300},
        {"ip": "\u0661.0.0.1"},
        {"ip": "127.0.0.1"},
        {"ip": "localhost"},
        {"ip": "2130706433"},
        {"ip": "0x7f.1"},
        {"ip": "::1"},
        {"ip": "::ffff:127.0.0.1"},
        {"ip": "0.0.0.0"},
        {"ip": "169.254.169.254"},
        {"ip": "::ffff:169.254.169.254"},
        {"ip": "metadata.google.internal"},
        {"ip": "224.0.0.1"},
        {"port": 0},
        {"port": -1},
        {"port": 65536},
        {"port": 2**62},
        {"name": "evil\n2026"},
        {"name": "\x1b[31m"},
        {"name": "x" * 10_000},
        {"name": ""},
        {"worker_uuid": ""},
    ],
    ids=lambda odd: ascii(odd)[:40],
)
async def test_a_machine_with_an_odd_name_or_address_does_not_join(world: World, odd: dict[str, Any]) -> None:
    answer = await world.ask("POST", "/v1/workers", TOKEN, json={**JOIN, **odd})
    assert answer.status_code == 422, answer.text
    assert not world.store.snapshot.workers


@pytest.mark.attack("worker")
async def test_a_worker_cannot_move_to_an_odd_address(world: World) -> None:
    worker, credential = await world.worker("node")
    body = {"status": {}, "ip": "127.0.0.1\r\nx: y"}
    answer = await world.ask("PUT", f"/v1/workers/{worker.id}/status", credential, json=body)
    assert answer.status_code == 422
    assert world.store.snapshot.workers[worker.id].ip == "10.0.1.1"


@pytest.mark.attack("access")
@pytest.mark.parametrize(
    "query", ["", "?all=true", "?user_id=2", "?user_id=2&user_id=3&perPage=-1", "?watch=x"]
)
async def test_the_keys_of_others_cannot_be_seen_changed_or_deleted(world: World, query: str) -> None:
    ada, bob = await world.user("ada"), await world.user("bob")
    (key,) = (await world.get("/v1/api-keys", ada))["items"]
    answer = await world.ask("GET", f"/v1/api-keys{query}", bob)
    assert f'"user_id":{ada.id}' not in answer.text
    path = f"/v1/api-keys/{key['id']}"
    for method, body in (("DELETE", None), ("PUT", {"is_enabled": False}), ("PUT", {"user_id": bob.id})):
        assert (await world.ask(method, path, bob, json=body)).status_code == 404
    assert (await world.ask("GET", "/v1/users/me", ada)).status_code == 200


MODELS_SHOWN = {
    "/v1/models",
    "/v1/models/{id}",
    "/v1-openai/models",
    "/v1-openai/models/{name}",
    "/v1/voices",
}
SCOPED = [
    *([scope] for scope in KeyScope),
    [KeyScope.INFERENCE, KeyScope.READ],
    [KeyScope.MANAGEMENT, KeyScope.INFERENCE],
]


@pytest.mark.attack("access")
@pytest.mark.parametrize("scopes", SCOPED, ids="+".join)
async def test_a_key_opens_no_route_that_is_not_of_its_scopes(world: World, scopes: list[KeyScope]) -> None:
    """Every route, with an administrator's key: it is let in exactly where the scopes say."""
    body = {"name": "scoped", "scopes": scopes}
    key = (await world.ask("POST", "/v1/api-keys", world.admin, json=body)).json()["value"]
    reads = bool({KeyScope.READ, KeyScope.MANAGEMENT} & set(scopes))
    wrong = []
    for route in ROUTES:
        if route.allow is None or Role.ADMIN not in route.allow:
            continue
        lists = route.method == "GET" and route.path in MODELS_SHOWN
        may = reads if route.method == "GET" else KeyScope.MANAGEMENT in scopes
        path = route.path.replace("{id}", "999") + ("?perPage=x&since=x" if route.method == "GET" else "")
        # A body and a query that nobody takes: what is let in is refused for that, or finds nothing there.
        answer = await world.ask(route.method, path, key, content=b"{")
        refused = answer.status_code == 403 and "needs the scope" in answer.text
        if refused is (may or lists):
            wrong.append((route.method, route.path, answer.status_code, answer.text[:80]))
    assert not wrong


@pytest.mark.attack("access")
async def test_a_key_that_only_infers_sees_no_environment(world: World) -> None:
    await world.model("m", env={"HF_TOKEN": "hf_secret"})
    body = {"name": "scoped", "scopes": ["inference"]}
    key = (await world.ask("POST", "/v1/api-keys", world.admin, json=body)).json()["value"]
    answer = await world.ask("GET", "/v1/models", key)
    assert answer.status_code == 200
    assert [item["name"] for item in answer.json()["items"]] == ["m"]
    assert "hf_secret" not in answer.text
    assert "hf_secret" in (await world.ask("GET", "/v1/models", world.admin)).text


MORE: list[tuple[dict[str, Any], dict[str, Any]]] = [
    ({"scopes": ["management"]}, {}),
    ({"scopes": ["management"]}, {"scopes": None}),
    ({"scopes": ["management"]}, {"scopes": ["inference"]}),
    ({"scopes": ["management"]}, {"scopes": ["management", "inference", "read"]}),
    ({"scopes": ["management", "inference"], "allowed_model_names": ["a"]}, {"scopes": ["inference"]}),
    ({"allowed_model_names": ["a"]}, {"allowed_model_names": None}),
    ({"allowed_model_names": ["a"]}, {"allowed_model_names": ["a", "b"]}),
    ({"allowed_model_names": ["a"]}, {"allowed_model_names": ["A"]}),
    ({"expires_in": 60}, {}),
    ({"expires_in": 60}, {"expires_in": 61}),
    ({"expires_in": 60}, {"expires_in": 0}),
    ({"limits": {"requests_per_minute": 5}}, {}),
    ({"limits": {"requests_per_minute": 5}}, {"limits": {"tokens_per_day": 5}}),
    ({"limits": {"requests_per_minute": 5}}, {"limits": {"requests_per_minute": 6}}),
]


@pytest.mark.attack("access")
@pytest.mark.parametrize(("own", "other"), MORE, ids=lambda body: ascii(body))
async def test_a_key_makes_no_key_that_may_more(
    world: World, own: dict[str, Any], other: dict[str, Any]
) -> None:
    made = (await world.ask("POST", "/v1/api-keys", world.admin, json={"name": "own", **own})).json()
    before = world.store.snapshot.api_keys
    answer = await world.ask("POST", "/v1/api-keys", made["value"], json={"name": "more", **other})
    assert answer.status_code == 403, answer.text
    wider = dict.fromkeys(own)
    for key, body in ((made["id"], wider), (1, {"description": "of the one that may all", **other})):
        answer = await world.ask("PUT", f"/v1/api-keys/{key}", made["value"], json=body)
        assert answer.status_code == 403, answer.text
    assert world.store.snapshot.api_keys == before


@pytest.mark.attack("access")
async def test_a_key_makes_one_that_may_as_much_or_less(world: World) -> None:
    own: dict[str, Any] = {
        "scopes": ["management", "inference"],
        "allowed_model_names": ["a", "b"],
        "expires_in": 60,
    }
    key = (await world.ask("POST", "/v1/api-keys", world.admin, json={"name": "own", **own})).json()["value"]
    less = {**own, "scopes": ["read"], "allowed_model_names": ["b"]}
    for name, body in (("same", own), ("less", less)):
        answer = await world.ask("POST", "/v1/api-keys", key, json={"name": name, **body})
        assert answer.status_code == 200, answer.text


@pytest.mark.attack("access")
async def test_a_key_of_an_administrator_goes_down_with_its_owner(world: World) -> None:
    boss = await world.user("boss", is_admin=True)
    assert (await world.ask("GET", "/v1/users", boss)).status_code == 200
    body = {"is_admin": False}
    assert (await world.ask("PUT", f"/v1/users/{boss.id}", world.admin, json=body)).status_code == 200
    assert (await world.ask("GET", "/v1/users", boss)).status_code == 403
    body = {"is_active": False}
    assert (await world.ask("PUT", f"/v1/users/{boss.id}", world.admin, json=body)).status_code == 200
    assert (await world.ask("GET", "/v1/users/me", boss)).status_code == 401


@pytest.mark.attack("access")
async def test_nobody_makes_an_administrator_of_oneself(world: World) -> None:
    ada = await world.user("ada")
    more = {"is_admin": True, "is_active": True, "username": "admin", "id": 1, "hashed_password": "x"}
    answer = await world.ask("PUT", "/v1/users/me", ada, json={"full_name": "Ada", **more})
    assert answer.status_code == 200
    now = world.store.snapshot.users[ada.id]
    assert (now.is_admin, now.username, now.full_name) == (False, "ada", "Ada")


@pytest.mark.attack("secret")
async def test_no_answer_shows_a_secret(world: World) -> None:
    await world.user("ada", password=PASSWORD)
    await world.worker("node")
    hashes = [user.hashed_password for user in world.store.snapshot.users.values() if user.hashed_password]
    hashes += [key.secret_hash for key in world.store.snapshot.api_keys.values()]
    hashes += [worker.credential_hash for worker in world.store.snapshot.workers.values()]
    for route in ROUTES:
        endless = "/logs" in route.path or route.answer_type == "text/event-stream"
        if route.method == "GET" and route.allow is not None and not endless:
            text = (await world.ask("GET", route.path.replace("{id}", "1"), world.admin)).text
            assert not [secret for secret in (*hashes, TOKEN) if secret in text], route.path


@pytest.mark.attack("flood")
async def test_sorting_by_a_thousand_fields_keeps_nobody_waiting(world: World) -> None:
    ada = await world.user("ada")
    answer = await world.ask("GET", "/v1/api-keys?sort_by=" + ",".join(["id"] * 1000), ada)
    assert answer.status_code == 422


@pytest.mark.attack("flood")
async def test_somebody_unknown_gets_little_memory(world: World) -> None:
    form = b"username=a&password=" + b"x" * LARGEST_FORM
    async with world.client() as client:
        answer = await client.post("/auth/login", content=form)
    assert answer.status_code == 413
    assert str(LARGEST_FORM) in answer.json()["message"]


@pytest.mark.attack("flood")
async def test_logging_in_for_ever_keeps_a_bounded_number_of_logins(world: World) -> None:
    form = {"username": "admin", "password": PASSWORD}
    async with world.client() as client:
        for _ in range(103):
            last = await client.post("/auth/login", data=form)
            client.cookies.clear()
        assert last.status_code == 200
    assert len(world.store.snapshot.all(Session)) == 100


@pytest.mark.attack("flood")
async def test_many_names_from_one_address_wait_for_each_other_and_not_all_of_us_for_them() -> None:
    throttle, begun = LoginThrottle(lambda: 0.0), 0

    async def attempt(name: str) -> None:
        nonlocal begun
        try:
            with throttle.attempt("10.0.0.1", name):
                begun += 1
                await trio.sleep_forever()
        except TooManyRequests:
            pass

    async with trio.open_nursery() as nursery:
        for number in range(500):
            nursery.start_soon(attempt, f"name-{number}")
        await trio.testing.wait_all_tasks_blocked()
        assert begun == 64
        with throttle.attempt("10.0.0.2", "ada"):
            nursery.cancel_scope.cancel()
    assert repr(throttle) == "<LoginThrottle: 0 with failed logins, 0 being verified>"
    with throttle.attempt("10.0.0.1", "ada"):
        pass


@pytest.mark.attack("parser")
@pytest.mark.parametrize("number", ["NaN", "Infinity", "-Infinity", "1e400", "9" * 400])
async def test_numbers_that_are_none_are_refused(world: World, number: str) -> None:
    body = (
        b'{"name": "m", "source": "local_path", "local_path": "/m.gguf", "replicas": '
        + number.encode()
        + b"}"
    )
    async with world.client(world.admin) as client:
        answer = await client.post("/v1/models", content=body)
    assert answer.status_code in (400, 422)
    assert orjson.loads(answer.content)["message"]
