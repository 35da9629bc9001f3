"""Pages of other sites read what the options let them read, and no more."""

from __future__ import annotations

from typing import Any

import pytest

from gpustack.api.context import AccessRules
from gpustack.api.cors import CorsPolicy, cross_origin
from gpustack.http1.head import RequestHead, parse_request_head

from .test_login import login
from .world import DAEMON, World

PAGE = "https://app.example.com"


def head(method: str = "GET", path: str = "/v1/models", **headers: str) -> RequestHead:
    lines = "".join(f"{name.replace('_', '-')}: {value}\r\n" for name, value in headers.items())
    parsed = parse_request_head(f"{method} {path} HTTP/1.1\r\nHost: gpustack.example\r\n{lines}\r\n".encode())
    assert isinstance(parsed, RequestHead)
    return parsed


def question(origin: str = PAGE, method: str = "POST", headers: str | None = "authorization") -> RequestHead:
    more = {} if headers is None else {"Access_Control_Request_Headers": headers}
    return head("OPTIONS", Origin=origin, Access_Control_Request_Method=method, **more)


def rule(**changes: Any) -> CorsPolicy:
    settled: dict[str, Any] = {
        "origins": ["*"],
        "methods": ["GET", "POST"],
        "headers": ["Authorization", "Content-Type"],
        "credentials": False,
        **changes,
    }
    return cross_origin(**settled)


def told(fields: list[tuple[bytes, bytes]]) -> dict[str, str]:
    return {name.decode(): value.decode() for name, value in fields}


def test_everybody_may_read_when_no_origin_is_named() -> None:
    found = told(rule().fields(head(Origin=PAGE)))
    assert found["access-control-allow-origin"] == "*"
    assert "Retry-After" in found["access-control-expose-headers"]


def test_a_program_that_names_no_origin_gets_nothing_it_did_not_ask_for() -> None:
    assert rule().fields(head()) == []


def test_named_origins_are_told_apart_and_caches_know_it() -> None:
    some = rule(origins=["https://App.Example.com/", "http://localhost:3000"])
    assert told(some.fields(head(Origin=PAGE)))["access-control-allow-origin"] == PAGE
    stranger = told(some.fields(head(Origin="https://evil.example")))
    assert "access-control-allow-origin" not in stranger
    for fields in (some.fields(head()), some.fields(head(Origin=PAGE))):
        assert (b"vary", b"Origin") in fields
    assert stranger["vary"] == "Origin"


@pytest.mark.parametrize(
    ("written", "sent"),
    [
        ("https://app.example.com:443", "https://app.example.com"),
        ("http://app.example.com:80/", "http://app.example.com"),
        ("http://[::1]:5173", "http://[::1]:5173"),
        ("app://obsidian.md", "app://obsidian.md"),
    ],
)
def test_origins_are_understood_as_people_write_them(written: str, sent: str) -> None:
    found = told(rule(origins=[written]).fields(head(Origin=sent)))
    assert found["access-control-allow-origin"] == sent


def test_a_preflight_is_answered_with_what_is_allowed() -> None:
    answer = rule().preflight(question())
    assert answer is not None and (answer.status, answer.body) == (204, b"")
    found = told(answer.fields)
    assert found["access-control-allow-methods"] == "GET, POST"
    assert found["access-control-allow-headers"] == "Authorization, Content-Type"
    assert int(found["access-control-max-age"]) > 0


def test_stars_for_methods_and_headers_allow_what_is_asked_for() -> None:
    answer = rule(methods=["*"], headers=["*"]).preflight(
        question(method="DELETE", headers="authorization, x-a")
    )
    assert answer is not None
    found = told(answer.fields)
    assert found["access-control-allow-methods"] == "DELETE"
    assert found["access-control-allow-headers"] == "authorization, x-a"


@pytest.mark.attack("forged-line")
def test_only_names_of_headers_are_given_back() -> None:
    answer = rule(headers=["*"]).preflight(question(headers="x-good, bad name, x;y"))
    assert answer is not None and told(answer.fields)["access-control-allow-headers"] == "x-good"


@pytest.mark.attack("cross-site")
def test_an_origin_that_is_not_allowed_is_told_which_option_would_let_it_in() -> None:
    answer = rule(origins=[PAGE]).preflight(question("https://evil.example"))
    assert answer is not None and answer.status == 403
    assert "access-control-allow-origin" not in told(answer.fields)
    assert b"--allow-origins https://evil.example" in answer.body


@pytest.mark.parametrize(
    "other", [head("OPTIONS"), head("OPTIONS", Origin=PAGE), head("GET", Origin=PAGE), head("POST")]
)
def test_what_is_no_preflight_goes_on(other: RequestHead) -> None:
    assert rule().preflight(other) is None


@pytest.mark.attack("cross-site")
def test_cookies_are_for_named_origins_only() -> None:
    named = rule(origins=[PAGE], credentials=True)
    assert told(named.fields(head(Origin=PAGE)))["access-control-allow-credentials"] == "true"
    assert named.trusted == {PAGE}
    everybody = rule(credentials=True)
    found = told(everybody.fields(head(Origin=PAGE)))
    assert found["access-control-allow-origin"] == "*"
    assert "access-control-allow-credentials" not in found
    assert not everybody.trusted
    assert not rule(origins=[PAGE]).trusted


@pytest.mark.attack("cross-site")
async def test_pages_of_a_trusted_origin_may_use_a_login_and_others_may_not(world: World) -> None:
    trusting = world.rebuilt(rules=AccessRules(trusted_origins=frozenset({PAGE})))
    async with trusting.client() as client:
        assert (await login(client)).status_code == 200
        body = {"name": "of a page"}
        site = {"Sec-Fetch-Site": "same-site"}
        good = await client.post("/v1/api-keys", json=body, headers={"Origin": PAGE, **site})
        assert good.status_code == 200, good.text
        bad = await client.post("/v1/api-keys", json=body, headers={"Origin": "https://evil.example", **site})
        assert bad.status_code == 403


@pytest.mark.attack("cross-site")
async def test_no_origin_is_trusted_with_a_place_on_this_machine(world: World) -> None:
    trusting = world.rebuilt(
        rules=AccessRules(trusted_origins=frozenset({PAGE}), local_admins=frozenset({DAEMON}))
    )
    async with trusting.client(peer="127.0.0.1", host="localhost") as client:
        assert (await client.get("/v1/users/me")).status_code == 200
        answer = await client.get("/v1/users/me", headers={"Origin": PAGE, "Sec-Fetch-Site": "cross-site"})
        assert answer.status_code == 403
