"""Options of the API have their effect on a running server, however they are spelt."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from tests.daemon import Daemon, daemon
from tests.options.spelling import shortly, spelled
from tests.server.feed import Feed, serving

PAGE = "https://app.example.com"
CATALOG = """
- name: Of this house
  sizes: [7]
  templates:
  - {source: local_path, local_path: "/models/house-{size}b.gguf"}
"""


@pytest.fixture(scope="module")
def feed() -> Iterator[Feed]:
    with serving(Feed(body=b'{"latest_version": "99.1.0"}')) as one:
        yield one


@pytest.fixture(scope="module", params=shortly("file"))
def server(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory, feed: Feed
) -> Iterator[Daemon]:
    folder = tmp_path_factory.mktemp("options")
    catalog = folder / "catalog.yaml"
    catalog.write_text(CATALOG)
    values = {
        "enable_cors": True,
        "allow_credentials": True,
        "allow_origins": [PAGE, "http://localhost:3000"],
        "allow_methods": ["GET", "POST", "DELETE"],
        "allow_headers": ["Authorization", "Content-Type", "X-Mine"],
        "model_catalog_file": str(catalog),
        "update_check_url": feed.url,
        "disable_openapi_docs": True,
        "disable_worker": True,
    }
    flags, env = spelled(request.param, folder, values)
    with daemon(folder / "data", *flags, env=env) as one:
        yield one


@pytest.fixture
def client(server: Daemon) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=server.url, timeout=60) as one:
        yield one


@pytest.mark.parametrize("path", ["/v1/chat/completions", "/v1/models", "/healthz", "/nowhere"])
def test_a_browser_that_asks_beforehand_is_told_what_is_allowed(client: httpx.Client, path: str) -> None:
    asked = {"Access-Control-Request-Method": "POST", "Access-Control-Request-Headers": "authorization"}
    answer = client.options(path, headers={"Origin": PAGE, **asked})
    assert answer.status_code == 204
    told = answer.headers
    assert told["access-control-allow-origin"] == PAGE
    assert told["access-control-allow-credentials"] == "true"
    assert told["access-control-allow-methods"] == "GET, POST, DELETE"
    assert told["access-control-allow-headers"] == "Authorization, Content-Type, X-Mine"
    assert client.options(path, headers={"Origin": "https://evil.example", **asked}).status_code == 403


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", "/healthz", 200),
        ("GET", "/readyz", 200),
        ("GET", "/version", 200),
        ("GET", "/v1/users/me", 401),
        ("GET", "/nowhere", 404),
        ("POST", "/v1/chat/completions", 401),
        ("POST", "/v1/workers/1/heartbeat", 401),
    ],
)
def test_every_answer_says_who_may_read_it(client: httpx.Client, method: str, path: str, status: int) -> None:
    headers = {"Authorization": "Bearer gpustack_0123456789abcdef_0123456789abcdef0123456789abcdef"}
    answer = client.request(method, path, json={}, headers={"Origin": PAGE, **headers})
    assert answer.status_code == status
    assert answer.headers.get_list("access-control-allow-origin") == [PAGE]
    assert "Origin" in answer.headers["vary"]
    other = client.request(method, path, json={}, headers={"Origin": "https://evil.example", **headers})
    assert other.status_code == status
    assert "access-control-allow-origin" not in other.headers


def test_the_catalog_is_the_one_that_was_named(server: Daemon, client: httpx.Client) -> None:
    def listed() -> list[str]:
        return [item["name"] for item in client.get("/v1/model-sets").json()["items"]]

    server.until(lambda: listed() == ["Of this house"], "the catalog")
    (spec,) = client.get("/v1/model-sets/1/specs").json()["items"]
    assert (spec["local_path"], spec["size"]) == ("/models/house-7b.gguf", 7.0)


def test_a_new_version_is_heard_of(server: Daemon, client: httpx.Client) -> None:
    server.until(lambda: client.get("/update/").json()["latest_version"] == "99.1.0", "the version")


@pytest.mark.parametrize("path", ["/docs", "/redoc", "/openapi.json"])
def test_the_documentation_is_not_served(client: httpx.Client, path: str) -> None:
    assert client.get(path).status_code == 404


def test_without_the_options_nobody_else_may_read_and_a_bad_catalog_is_passed_over(tmp_path: Path) -> None:
    bad = tmp_path / "catalog.yaml"
    bad.write_text("- {home: nowhere}")
    with (
        daemon(tmp_path / "data", "--disable-worker", "--model-catalog-file", str(bad)) as one,
        httpx.Client(base_url=one.url, timeout=60, headers={"Origin": PAGE}) as client,
    ):
        answer = client.options("/v1/chat/completions", headers={"Access-Control-Request-Method": "POST"})
        assert answer.status_code >= 400
        for path in ("/healthz", "/v1/users/me", "/openapi.json"):
            assert "access-control-allow-origin" not in client.get(path).headers
        one.until(lambda: "The model catalog cannot be used" in one.log, "the fault of the catalog")
        assert len(httpx.get(f"{one.url}/v1/model-sets", timeout=60).json()["items"]) >= 10


def test_a_login_is_renewed_where_one_only_chats(tmp_path: Path) -> None:
    options = ("--disable-worker", "--bootstrap-password", "Right_2_come", "--force-auth-localhost")
    env = {"GPUSTACK_JWT_TOKEN_EXPIRE_MINUTES": "5"}
    with (
        daemon(tmp_path / "data", *options, env=env) as one,
        httpx.Client(base_url=one.url, timeout=60, headers={"Origin": one.url}) as client,
    ):
        first = client.post("/auth/login", data={"username": "admin", "password": "Right_2_come"})
        assert "Max-Age=300" in first.headers["set-cookie"]
        body = {"model": "none", "messages": []}
        answer = client.post("/v1/chat/completions", json=body)
        assert answer.status_code == 404
        assert "Max-Age=300" in answer.headers["set-cookie"]
