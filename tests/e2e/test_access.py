"""On a running daemon: models are for whom they say, keys for what they say, and who is shut out is out at once."""

from __future__ import annotations

import base64
import http.client
import json
import sys
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, closing, contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest

from tests.daemon import WITHIN, Daemon, daemon

PASSWORD = "Adas_1_password"
ENGINE = Path(__file__).parents[1] / "fakes" / "engine.py"
CHAT = "/v1/chat/completions"
SAY: dict[str, Any] = {"messages": [{"role": "user", "content": "hello"}], "max_tokens": 5}
NARROW = {"scopes": ["inference"], "allowed_model_names": ["named", "absent"]}
# Who comes through a proxy is not on this machine, as far as anybody knows.
NOBODY = {"x-forwarded-for": "192.0.2.1"}


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Daemon]:
    with daemon(tmp_path_factory.mktemp("access") / "data") as one:
        for name in ("ada", "bob"):
            assert one.call("POST", "/v1/users", {"username": name, "password": PASSWORD})[0] == 200
        for name, more in (
            ("public", {"access_policy": "public"}),
            ("authed", {}),
            ("named", {"access_policy": "allowed_users", "allowed_users": [user(one, "ada")]}),
        ):
            deploy(one, name, **more)
        for name in ("public", "authed", "named"):
            one.running(name)
        yield one
        assert "Traceback" not in one.log


def deploy(server: Daemon, name: str, **more: Any) -> None:
    body = {
        "name": name,
        "source": "local_path",
        "local_path": "/nonexistent",
        "backend": "custom",
        "command": f"{sys.executable} {ENGINE} --port {{port}} --slow-token 0.05 --repeat 1000",
        "health_path": "/health",
        "categories": ["llm"],
        **more,
    }
    status, made = server.call("POST", "/v1/models", body)
    assert status == 200, made


def user(server: Daemon, name: str) -> int:
    (found,) = server.call("GET", f"/v1/users?search={name}")[1]["items"]
    return int(found["id"])


def key(server: Daemon, name: str, **more: Any) -> tuple[int, Mapping[str, str]]:
    """A key of the user: its id, and the headers by which it is shown."""
    basic = {**NOBODY, "authorization": http_basic(name)}
    body = {"name": f"key-{len(server.call('GET', '/v1/api-keys?all=true&perPage=-1')[1]['items'])}", **more}
    status, made = server.call("POST", "/v1/api-keys", body, basic)
    assert status == 200, made
    return made["id"], {**NOBODY, "authorization": f"Bearer {made['value']}"}


def http_basic(name: str) -> str:
    return "Basic " + base64.b64encode(f"{name}:{PASSWORD}".encode()).decode()


def answers(server: Daemon, headers: Mapping[str, str]) -> dict[str, int]:
    asked = ("public", "authed", "named", "absent")
    return {name: server.call("POST", CHAT, {"model": name, **SAY}, headers)[0] for name in asked}


def listed(server: Daemon, headers: Mapping[str, str]) -> set[str]:
    status, document = server.call("GET", "/v1/models", headers=headers)
    assert status == 200, document
    return {item["id"] for item in document["data"]}


@contextmanager
def streaming(server: Daemon, asked: Mapping[str, Any]) -> Iterator[dict[str, http.client.HTTPResponse]]:
    """The answers, begun and not read; their connections end with the block."""
    with ExitStack() as stack:
        opened = {}
        for name, (method, path, body, headers) in asked.items():
            connection = http.client.HTTPConnection(urlsplit(server.url).netloc, timeout=WITHIN)
            stack.enter_context(closing(connection))
            text = None if body is None else json.dumps(body)
            connection.request(method, path, text, {**headers, "content-type": "application/json"})
            opened[name] = connection.getresponse()
            assert opened[name].status == 200
        yield opened


def to_its_end(answer: http.client.HTTPResponse) -> bytes:
    """What still comes of an answer, however it ends; fails when it does not."""
    pieces = []
    try:
        while piece := answer.read1(65536):
            pieces.append(piece)
    except (http.client.HTTPException, ConnectionResetError):
        pass
    return b"".join(pieces)


@pytest.mark.attack("access")
def test_a_model_is_for_whom_it_says(server: Daemon) -> None:
    ada, bob, narrow = (key(server, "ada")[1], key(server, "bob")[1], key(server, "ada", **NARROW)[1])
    server.until(lambda: listed(server, ada) == {"public", "authed", "named"}, "three models that serve")
    assert listed(server, bob) == {"public", "authed"}
    assert listed(server, NOBODY) == {"public"}
    assert listed(server, narrow) == {"named"}
    assert answers(server, ada) == {"public": 200, "authed": 200, "named": 200, "absent": 404}
    assert answers(server, bob) == {"public": 200, "authed": 200, "named": 404, "absent": 404}
    assert answers(server, NOBODY) == {"public": 200, "authed": 401, "named": 401, "absent": 401}
    assert answers(server, narrow) == {"public": 404, "authed": 404, "named": 200, "absent": 404}
    # and management by the narrow key is refused, whatever is asked
    assert server.call("GET", "/v1/users/me", headers=narrow)[0] == 403
    assert server.call("POST", "/v1/api-keys", {"name": "more"}, narrow)[0] == 403


def test_a_key_tells_when_it_was_used(server: Daemon) -> None:
    number, headers = key(server, "ada")

    def last_use() -> Any:
        items = server.call("GET", "/v1/api-keys?all=true&perPage=-1")[1]["items"]
        return next(item["last_used_at"] for item in items if item["id"] == number)

    assert last_use() is None
    assert server.call("POST", CHAT, {"model": "public", **SAY}, headers)[0] == 200
    server.until(last_use, "the date of the last use")


@pytest.mark.attack("session")
def test_who_is_disabled_is_out_in_the_midst_of_everything(server: Daemon) -> None:
    """A stream of an engine, a watch, a login and a key all end, and what nobody took away goes on."""
    _, headers = key(server, "bob")
    _, others = key(server, "ada")
    streams = {
        "answer": ("POST", CHAT, {**SAY, "max_tokens": 100_000, "model": "authed", "stream": True}, headers),
        "watch": ("GET", "/v1/models?watch=true", None, headers),
        "other": ("POST", CHAT, {**SAY, "max_tokens": 100_000, "model": "authed", "stream": True}, others),
    }
    with streaming(server, streams) as opened:
        for answer in opened.values():
            assert answer.readline()
        status, _ = server.call("PUT", f"/v1/users/{user(server, 'bob')}", {"is_active": False})
        assert status == 200
        for name in ("answer", "watch"):
            assert b"[DONE]" not in to_its_end(opened[name])
        assert opened["other"].readline()
        assert answers(server, headers) == {"public": 401, "authed": 401, "named": 401, "absent": 401}
        assert server.call("GET", "/v1/models", headers=headers)[0] == 401
        assert (
            server.call("GET", "/v1/users/me", headers={**NOBODY, "authorization": http_basic("bob")})[0]
            == 401
        )
