"""Whatever is sent, the answer is JSON in the right form, and never a trace of how we are made."""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import attrs
import pytest

from gpustack.api.context import SignOn
from gpustack.domain.access import Session, UserSource
from gpustack.errors import Unavailable

from .world import World


@pytest.mark.parametrize(
    ("body", "status"),
    [
        (b"", 400),
        (b"{", 400),
        (b'{"name": "\xff"}', 400),
        (b"\xff\xfe{\x00}\x00", 400),
        (b'{"name": NaN}', 400),
        (b"[" * 100_000, 400),
        (b"[]", 422),
        (b"null", 422),
        (b'"text"', 422),
        (b'{"name": "\\u0000"}', 422),
        (b'{"name": 1e400}', 400),
    ],
)
async def test_a_body_that_is_no_document_is_refused(world: World, body: bytes, status: int) -> None:
    answer = await world.ask(
        "POST", "/v1/api-keys", world.admin, content=body, headers={"Content-Type": "application/json"}
    )
    assert answer.status_code == status, answer.text
    assert set(answer.json()) == {"code", "reason", "message"}


async def pieces(count: int) -> AsyncIterator[bytes]:
    for _ in range(count):
        yield b" " * (1 << 20)


@pytest.mark.parametrize("declared", [True, False])
async def test_a_body_that_is_too_large_is_refused(world: World, declared: bool) -> None:
    content: Any = b" " * (3 << 20) if declared else pieces(3)
    answer = await world.ask("POST", "/v1/api-keys", world.admin, content=content)
    assert (answer.status_code, answer.json()["reason"]) == (413, "PayloadTooLarge")


async def test_who_is_not_let_in_sends_no_body_for_nothing(world: World) -> None:
    answer = await world.ask("POST", "/v1/api-keys", content=pieces(3))
    assert answer.status_code == 401


@pytest.mark.parametrize(
    "path",
    [
        "/nothing",
        "/v1/nothing",
        "/v1/models/1/2/3",
        "/v1//models",
        "/models",
        "/v1/models/1.5",
        "/v1/chat/completion",
    ],
)
async def test_an_unknown_path_is_not_found(world: World, path: str) -> None:
    answer = await world.ask("GET", path, world.admin)
    assert (answer.status_code, answer.json()["reason"]) == (404, "NotFound")
    assert answer.json()["error"]["message"] == answer.json()["message"], "OpenAI's clients read it too"


async def test_an_unknown_inference_path_answers_in_openais_form(world: World) -> None:
    answer = await world.ask("GET", "/v1-openai/nothing", world.admin)
    assert (answer.status_code, answer.json()["error"]["type"]) == (404, "NotFound")


@pytest.mark.parametrize(
    ("method", "path"), [("PATCH", "/v1/models/1"), ("DELETE", "/v1/models"), ("TRACE", "/docs")]
)
async def test_a_method_that_a_path_does_not_know_is_refused(world: World, method: str, path: str) -> None:
    answer = await world.ask(method, path, world.admin)
    assert (answer.status_code, answer.json()["reason"]) == (405, "MethodNotAllowed")
    assert "GET" in answer.headers["Allow"]


async def test_a_slash_at_the_end_makes_no_difference(world: World) -> None:
    assert (await world.ask("GET", "/v1/models/", world.admin)).status_code == 200


async def test_every_answer_is_kept_from_caches_and_guesses(world: World) -> None:
    for path in ("/v1/models", "/healthz", "/nothing"):
        answer = await world.ask("GET", path, world.admin)
        assert answer.headers["Cache-Control"] == "no-store"
        assert answer.headers["X-Content-Type-Options"] == "nosniff"
        assert answer.headers["Content-Type"] == "application/json"


async def test_our_own_faults_are_logged_and_not_shown(
    world: World, caplog: pytest.LogCaptureFixture
) -> None:
    def broken() -> Any:
        raise ZeroDivisionError("a secret of ours")

    with caplog.at_level(logging.CRITICAL + 1, logger="gpustack.api.app"):
        answer = await world.rebuilt(draw_tasks=broken).ask("GET", "/debug/tasks", world.admin)
    assert answer.status_code == 500
    assert answer.json()["reason"] == "Internal Server Error"
    assert "secret" not in answer.text


async def test_a_fault_that_may_pass_says_when_to_come_back(world: World) -> None:
    def away() -> Any:
        raise Unavailable("Not now", 7)

    answer = await world.rebuilt(draw_tasks=away).ask("GET", "/debug/tasks", world.admin)
    assert (answer.status_code, answer.headers["Retry-After"]) == (503, "7")


# --- what anybody may ask


async def test_the_server_lives_and_says_what_it_is(world: World) -> None:
    for path, expected in (
        ("/healthz", "ok"),
        ("/readyz", "ok"),
        ("/version", {"version": "1.2.3", "git_commit": "abcdef0"}),
        ("/auth-config", {}),
    ):
        answer = await world.ask("GET", path)
        assert (answer.status_code, answer.json()) == (200, expected)


async def test_a_server_that_is_not_ready_says_what_is_missing(world: World) -> None:
    starting = world.rebuilt(readiness=lambda: (False, {"store": "loading"}))
    answer = await starting.ask("GET", "/readyz")
    assert (answer.status_code, answer.json()["checks"]) == (503, {"store": "loading"})
    assert (await starting.ask("GET", "/healthz")).status_code == 200


@pytest.mark.parametrize("source", [UserSource.OIDC, UserSource.SAML])
async def test_a_browser_is_shown_how_to_sign_in(world: World, source: UserSource, tmp_path: Path) -> None:
    """Where the console was not built. Programs find nothing at ``/``, as before there was a page."""
    world = world.rebuilt(console=tmp_path)
    by_party = world.rebuilt(sign_on=SignOn(provider=Elsewhere(source)))
    told = {"is_oidc": source is UserSource.OIDC, "is_saml": source is UserSource.SAML}
    assert (await by_party.ask("GET", "/auth-config")).json() == told
    shown = await by_party.ask("GET", "/", headers={"Accept": "text/html"})
    assert shown.headers["Content-Type"] == "text/html; charset=utf-8"
    assert f'href="/auth/{source.lower()}/login"' in shown.text
    assert "default-src 'none'" in shown.headers["Content-Security-Policy"]
    plain = await world.ask("GET", "/", headers={"Accept": "text/html"})
    assert plain.status_code == 200
    assert "/auth/" not in plain.text
    assert (await by_party.ask("GET", "/")).status_code == 404


@attrs.frozen
class Elsewhere:
    """A party by which nobody signs in here."""

    source: UserSource

    def logout_url(self, session: Session) -> str | None:
        return None


# --- for administrators who look inside


async def test_the_level_of_logs_is_read_and_set(world: World) -> None:
    logger = logging.getLogger("gpustack")
    before = logger.level
    try:
        for name in ("debug", "TRACE", "critical"):
            answer = await world.ask("PUT", "/debug/log_level", world.admin, content=name.encode())
            assert (answer.status_code, answer.json()) == (200, "ok")
            assert (await world.get("/debug/log_level")) == name.lower()
        wrong = await world.ask("PUT", "/debug/log_level", world.admin, content=b"loud")
        assert (wrong.status_code, wrong.json()["message"]) == (422, "Invalid log level")
    finally:
        logger.setLevel(before)


async def test_the_tree_of_tasks_is_shown(world: World) -> None:
    drawn = world.rebuilt(draw_tasks=lambda: {"gpustack": ["store"]})
    assert await drawn.get("/debug/tasks") == {"gpustack": ["store"]}
