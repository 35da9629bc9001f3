"""A running daemon, attacked where its parts meet: what it says, writes down, removes and takes time for."""

from __future__ import annotations

import http.client
import json
import re
import socket
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any
from urllib.parse import urlencode, urlsplit

import pytest

from tests.daemon import Daemon, daemon

KEEP_OUT = {"x-content-type-options": "nosniff", "cache-control": "no-store"}
PAGE = {**KEEP_OUT, "x-frame-options": "DENY", "referrer-policy": "no-referrer"}
PASSWORD = "Adas_1_password"


@pytest.fixture(scope="module")
def victim(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Daemon]:
    with daemon(tmp_path_factory.mktemp("hardening") / "data") as one:
        yield one
        assert one.call("GET", "/readyz")[0] == 200
        assert "Traceback" not in one.log


@pytest.fixture(scope="module")
def key(victim: Daemon) -> str:
    """The key of somebody who is no administrator."""
    assert victim.call("POST", "/v1/users", {"username": "ada", "password": PASSWORD})[0] == 200
    basic = {"authorization": "Basic YWRhOkFkYXNfMV9wYXNzd29yZA=="}
    return str(victim.call("POST", "/v1/api-keys", {"name": "k"}, basic)[1]["value"])


def ask(
    victim: Daemon, method: str, target: str, body: bytes | str | None = None, headers: Any = ()
) -> tuple[int, dict[str, str], bytes]:
    parts = urlsplit(victim.url)
    assert parts.hostname is not None
    with closing(http.client.HTTPConnection(parts.hostname, parts.port, timeout=60)) as connection:
        connection.request(method, target, body, dict(headers))
        answer = connection.getresponse()
        return (
            answer.status,
            {name.lower(): value for name, value in answer.getheaders()},
            answer.read(),
        )


@pytest.mark.attack("cross-site")
@pytest.mark.parametrize(
    ("path", "wanted"),
    [
        ("/docs", PAGE), ("/redoc", PAGE), ("/openapi.json", KEEP_OUT), ("/v1/users", KEEP_OUT),
        ("/v1/api-keys", KEEP_OUT), ("/v1/models", KEEP_OUT), ("/auth-config", KEEP_OUT), ("/version", KEEP_OUT),
        ("/healthz", KEEP_OUT), ("/readyz", KEEP_OUT), ("/nothing", KEEP_OUT), ("/debug/tasks", KEEP_OUT),
        ("/proxy?url=https://evil.example/", KEEP_OUT),
    ],
)  # fmt: skip
def test_no_answer_is_kept_guessed_at_or_framed(victim: Daemon, path: str, wanted: dict[str, str]) -> None:
    _, headers, _ = ask(victim, "GET", path)
    assert {name: headers.get(name) for name in wanted} == wanted
    assert headers["server"] == "gpustack"  # and not of which version
    if wanted is PAGE:
        policy = headers["content-security-policy"]
        assert "default-src 'none'" in policy and "frame-ancestors 'none'" in policy
        assert "unsafe-inline" not in re.sub(r"style-src[^;]*", "", policy)


@pytest.mark.attack("secret")
def test_a_login_and_a_key_are_answered_once_and_kept_by_nobody(victim: Daemon, key: str) -> None:
    form = urlencode({"username": "ada", "password": PASSWORD})
    status, headers, _ = ask(
        victim, "POST", "/auth/login", form, {"content-type": "application/x-www-form-urlencoded"}
    )
    assert status == 200 and headers["cache-control"] == "no-store"
    cookie, *flags = headers["set-cookie"].split("; ")
    assert {"HttpOnly", "SameSite=Lax", "Path=/"} <= set(flags) and "Domain" not in headers["set-cookie"]
    status, headers, body = ask(
        victim, "POST", "/v1/api-keys", b'{"name": "once"}',
        {"cookie": cookie, "content-type": "application/json"},
    )  # fmt: skip
    assert status == 200 and headers["cache-control"] == "no-store"
    value = json.loads(body)["value"]
    assert value.rpartition("_")[2] not in json.dumps(victim.call("GET", "/v1/api-keys")[1]) + victim.log


FORGED = "2026-01-01T00:00:00.000+00:00 - gpustack - INFO - forged"
BREAKS = ["%0a", "%0d%0a", "%00", "%1b[2J", "%e2%80%a8", "%c2%85", "%e2%80%ae"]


@pytest.mark.attack("forged-line")
@pytest.mark.parametrize("odd", BREAKS)
def test_nothing_that_is_asked_for_forges_a_line(victim: Daemon, key: str, odd: str) -> None:
    from urllib.parse import quote, unquote_to_bytes

    broken = unquote_to_bytes(odd).decode() + FORGED
    line = odd + quote(FORGED)
    ask(victim, "GET", f"/v1/models/{line}")
    ask(victim, "GET", f"/v1/models?search={line}")
    ask(victim, "DELETE", f"/v1/users/{line}")
    ask(victim, "POST", "/auth/login", f"username={line}&password=x",
        {"content-type": "application/x-www-form-urlencoded", "x-forwarded-for": "10.0.0.9"})  # fmt: skip
    for field in ("model", "stream"):
        body = json.dumps({"model": "m", "messages": [], field: broken})
        ask(victim, "POST", "/v1/chat/completions", body, {"authorization": f"Bearer {key}"})
    victim.call("PUT", "/debug/log_level", {"level": broken})
    victim.call(
        "POST", "/v1/model-files", {"worker_id": 1, "source": "local_path", "local_path": f"/x{broken}"}
    )
    assert not re.search(r"^2026-01-01", victim.log, re.MULTILINE)
    assert "\x1b" not in victim.log and "\u202e" not in victim.log


@pytest.mark.attack("forged-line")
@pytest.mark.parametrize(
    "odd", ["a\nb", "\x1b[31mred", "a\rb", "\u202egnp.exe", "\u2028", "\x9b2J"], ids=ascii
)
def test_no_name_steers_the_terminal_of_who_lists_it(victim: Daemon, key: str, odd: str) -> None:
    own = {"authorization": f"Bearer {key}"}
    assert victim.call("POST", "/v1/api-keys", {"name": odd}, own)[0] == 422
    assert victim.call("PUT", "/v1/users/me", {"full_name": odd}, own)[0] == 422
    assert victim.call("POST", "/v1/users", {"username": odd, "password": PASSWORD})[0] == 422


@pytest.mark.attack("traversal")
@pytest.mark.parametrize(
    "path",
    [
        "/docs/assets/..%2f..%2fapp.py", "/docs/assets/%2e%2e/app.py", "/docs/assets/..\\app.py", "/docs/assets/%00",
        "/docs/assets//etc/passwd", "/v1/../debug/tasks", "/v1/%2e%2e/debug/tasks", "/v1/model-instances/..%2f1/logs",
        "/v1/model-instances/1%2f..%2f2/logs", "/v1/models/%2e%2e", "/v1/models/1%00", "/v1/models/１", "/v1/models/+1",
    ],
)  # fmt: skip
def test_no_path_is_another_one(victim: Daemon, path: str) -> None:
    from urllib.parse import quote

    status, _, body = ask(victim, "GET", quote(path, safe="/%.\\+"))
    assert status in (400, 404), body
    assert b"root:" not in body and b"import" not in body


@pytest.mark.attack("access")
@pytest.mark.parametrize(
    "path",
    ["/v1/chat%2fcompletions", "/v1//chat/completions", "/v1/chat/completions/", "/V1/chat/completions",
     "/v1/./chat/completions", "/v1/chat/completions;x", "/v1/chat/completions%00", "/%76%31/chat/completions"],
)  # fmt: skip
def test_inference_has_no_second_door(victim: Daemon, path: str) -> None:
    """A path that only one of the two readers takes for inference reaches no engine, and passes no limit by."""
    status, _, _ = ask(victim, "POST", path, b'{"model": "m"}', {"content-type": "application/json"})
    assert status in (404, 405)


@pytest.mark.attack("traversal")
@pytest.mark.parametrize("way", ["itself", "over a link in the cache", "by dots"])
def test_forgetting_a_local_file_removes_nothing(victim: Daemon, tmp_path: Path, way: str) -> None:
    precious = tmp_path / f"{way.partition(' ')[0]}.gguf"
    precious.write_bytes(b"precious")
    path = str(precious)
    cache = victim.data_dir / "cache"
    if way == "over a link in the cache":
        cache.mkdir(exist_ok=True)
        (cache / "link").symlink_to(tmp_path)
        path = str(cache / "link" / precious.name)
    elif way == "by dots":
        path = f"{cache}/../../../../../../../../..{precious}"
    body = {"worker_id": 1, "source": "local_path", "local_path": path}
    status, made = victim.call("POST", "/v1/model-files", body)
    assert status in (200, 422), made
    if status == 200:
        read = lambda: victim.call("GET", f"/v1/model-files/{made['id']}")[1]  # noqa: E731
        victim.until(lambda: read()["state"] != "downloading", "the file to be found")
        assert victim.call("DELETE", f"/v1/model-files/{made['id']}?cleanup=true")[0] == 200
        victim.until(
            lambda: (
                made["id"] not in [one["id"] for one in victim.call("GET", "/v1/model-files")[1]["items"]]
            ),
            "the record to be gone",
        )
    assert precious.read_bytes() == b"precious"


DEEP = 200_000


@pytest.mark.attack("flood")
@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/v1/models", b"[" * DEEP), ("/v1/models", b'{"a":' * DEEP), ("/v1/models", b'{"env":' + b'{"a":' * DEEP),
        ("/v1/models", b'{"replicas": ' + b"9" * DEEP + b"}"), ("/v1/metrics/config", b'{"runtime_mapping":' * DEEP),
        ("/v1/chat/completions", b"[" * DEEP), ("/v1/chat/completions", b'{"model":"m","a":' + b"[" * DEEP),
        ("/v1/chat/completions", b'{"model":"m","a":"' + b'\\"' * (1 << 20)),
        ("/v1/chat/completions", b'{"model":"m","a":["' + b'\\"' * (1 << 20)),
        ("/v1/embeddings", b'{"model":"m","stream_options":' * DEEP), ("/auth/login", b"username=" + b"%" * 16_000),
    ],
    ids=lambda value: ascii(value[:40]),
)  # fmt: skip
def test_a_deep_or_endless_document_is_refused_at_once(
    victim: Daemon, key: str, path: str, body: bytes
) -> None:
    kind = "application/x-www-form-urlencoded" if path == "/auth/login" else "application/json"
    status, _, _ = ask(victim, "POST", path, body, {"content-type": kind})
    assert status in (400, 401, 404, 413, 422, 429)


@pytest.mark.attack("flood")
def test_heads_without_a_point_are_ended(victim: Daemon) -> None:
    parts = urlsplit(victim.url)
    for data in (b"\r\n" * 40, b"GET / HTTP/1.1\r\nhost: x\r\n" + b"a:\r\n" * 300 + b"\r\n"):
        with socket.create_connection((parts.hostname, parts.port), timeout=30) as client:
            client.sendall(data)
            assert client.recv(65536).split(b" ")[1] in (b"400", b"431")
            client.shutdown(socket.SHUT_WR)
            assert client.recv(65536) == b""
