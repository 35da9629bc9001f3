"""A real daemon under attack from outside: it refuses, keeps its secrets, and goes on serving everybody else."""

from __future__ import annotations

import http.client
import json
import os
import re
import socket
import stat
import sys
import threading
from collections.abc import Iterator
from contextlib import ExitStack, closing
from pathlib import Path
from typing import Any
from urllib.parse import urlencode, urlsplit

import pytest

from tests.daemon import Daemon, daemon

PASSWORD = "Bobs_1_password"
SECRET = "hf_a_token_in_an_environment"
ENGINE = Path(__file__).parents[1] / "fakes" / "hostile_engine.py"


@pytest.fixture(scope="module")
def victim(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Daemon]:
    """A daemon whose data directory lies open, as one that somebody made beforehand."""
    data_dir = tmp_path_factory.mktemp("attack") / "data"
    data_dir.mkdir(mode=0o755)
    before = os.umask(0o022)
    try:
        with daemon(data_dir) as one:
            yield one
            assert one.call("GET", "/readyz")[0] == 200
            assert "Traceback" not in one.log
            assert "trying again" not in one.log
    finally:
        os.umask(before)


@pytest.fixture(scope="module")
def bob(victim: Daemon) -> str:
    """The API key of a user who is no administrator."""
    body = {"username": "bob", "password": PASSWORD}
    assert victim.call("POST", "/v1/users", body)[0] == 200
    cookie = login(victim)[1]["set-cookie"].partition(";")[0]
    status, key = victim.call("POST", "/v1/api-keys", {"name": "b"}, {"cookie": cookie})
    assert status == 200, key
    return str(key["value"])


@pytest.fixture(scope="module")
def hostile(victim: Daemon) -> str:
    """A deployment whose engine answers whatever the prompt tells it to."""
    body = {
        "name": "hostile",
        "source": "local_path",
        "local_path": "/nonexistent",
        "backend": "custom",
        "command": f"{sys.executable} {ENGINE} {{port}}",
        "health_path": "/health",
        "env": {"HF_TOKEN": SECRET},
    }
    assert victim.call("POST", "/v1/models", body)[0] == 200
    victim.running("hostile")
    return "hostile"


def address(victim: Daemon) -> tuple[str, int]:
    parts = urlsplit(victim.url)
    assert parts.hostname is not None and parts.port is not None
    return parts.hostname, parts.port


def login(victim: Daemon, **more: str) -> tuple[int, dict[str, str]]:
    form = urlencode({"username": "bob", "password": PASSWORD, **more})
    with closing(http.client.HTTPConnection(*address(victim), timeout=30)) as connection:
        connection.request("POST", "/auth/login", form, {"content-type": "application/x-www-form-urlencoded"})
        answer = connection.getresponse()
        answer.read()
        return answer.status, {name.lower(): value for name, value in answer.getheaders()}


def raw(victim: Daemon, data: bytes) -> bytes:
    """All that is answered to these bytes until the server closes."""
    with socket.create_connection(address(victim), timeout=30) as client:
        client.sendall(data)
        client.shutdown(socket.SHUT_WR)
        pieces = []
        try:
            while piece := client.recv(65536):
                pieces.append(piece)
        except ConnectionResetError:
            pass
        return b"".join(pieces)


def statuses(answer: bytes) -> list[int]:
    return [int(found) for found in re.findall(rb"^HTTP/1\.1 (\d{3}) ", answer, re.MULTILINE)]


GET = b"GET /v1/users HTTP/1.1\r\nhost: localhost\r\n"
SMUGGLED = b"GET /v1/smuggled HTTP/1.1\r\nhost: localhost\r\n\r\n"


@pytest.mark.attack("smuggling")
@pytest.mark.parametrize(
    "request_",
    [
        b"POST /v1/models HTTP/1.1\r\nhost: x\r\ncontent-length: 5\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n",
        b"POST /v1/models HTTP/1.1\r\nhost: x\r\ncontent-length: 0\r\ncontent-length: 60\r\n\r\n",
        b"POST /v1/models HTTP/1.1\r\nhost: x\r\ncontent-length: 0, 60\r\n\r\n",
        b"POST /v1/models HTTP/1.1\r\nhost: x\r\ncontent-length: +0\r\n\r\n",
        b"POST /v1/models HTTP/1.1\r\nhost: x\r\ncontent-length: -1\r\n\r\n",
        b"POST /v1/models HTTP/1.1\r\nhost: x\r\ntransfer-encoding: xchunked\r\n\r\n0\r\n\r\n",
        b"POST /v1/models HTTP/1.1\r\nhost: x\r\ntransfer-encoding : chunked\r\n\r\n0\r\n\r\n",
        b"POST /v1/models HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked, identity\r\n\r\n0\r\n\r\n",
        b"POST /v1/models HTTP/1.0\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n",
        b"GET /v1/users HTTP/1.1\r\nhost: x\r\n folded: y\r\n\r\n",
        b"GET /v1/users HTTP/1.1\nhost: x\n\n",
        b"GET /v1/users HTTP/1.1\r\nhost: x\r\nx: a\0b\r\n\r\n",
        b"GET /v1/users HTTP/1.1\r\nhost: localhost\r\nhost: evil.example\r\n\r\n",
        b"GET /v1/users HTTP/1.1\r\nhost: localhost@evil.example\r\n\r\n",
        b"GET http://localhost@evil.example/v1/users HTTP/1.1\r\nhost: localhost\r\n\r\n",
        b"GET /v1/users HTTP/1.1\r\n\r\n",
        b"GET /v1/users HTTP/2.0\r\nhost: x\r\n\r\n",
        b"GET /v1/users\r\n\r\n",
        b"CONNECT localhost:22 HTTP/1.1\r\nhost: localhost\r\n\r\n",
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
        GET + b"x: " + b"a" * 70_000 + b"\r\n\r\n",
        b"GET /" + b"a" * 70_000 + b" HTTP/1.1\r\nhost: x\r\n\r\n",
    ],
    ids=lambda r: ascii(r[:60]),
)
def test_what_two_programs_could_read_differently_ends_the_connection(
    victim: Daemon, request_: bytes
) -> None:
    answer = raw(victim, request_ + SMUGGLED)
    found = statuses(answer)
    assert len(found) == 1 and 400 <= found[0] < 600, answer[:300]
    assert b"smuggled" not in answer


FOREIGN: list[tuple[str, list[str]]] = [
    ("another name", ["host: evil.example"]),
    ("a name that begins so", ["host: localhost.evil.example"]),
    ("another spelling", ["host: 2130706433"]),
    ("forwarded", ["host: localhost", "x-forwarded-for: 127.0.0.1"]),
    ("forwarded by the standard", ["host: localhost", "forwarded: for=127.0.0.1"]),
    ("forwarded without saying for whom", ["host: localhost", "x-real-ip:"]),
    ("via", ["host: localhost", "via: 1.1 proxy"]),
    ("another site's page", ["host: localhost", "origin: http://evil.example"]),
    ("a sandboxed page", ["host: localhost", "origin: null"]),
    ("another port's page", ["host: localhost", "origin: http://localhost:1"]),
    ("a browser says so", ["host: localhost", "sec-fetch-site: cross-site"]),
    ("a sibling", ["host: localhost", "sec-fetch-site: same-site"]),
    ("a rebound name", ["host: evil.example", "origin: http://evil.example", "sec-fetch-site: same-origin"]),
    ("a bad key", ["host: localhost", "authorization: Bearer gpustack_0123456789abcdef_" + "0" * 32]),
    ("the cluster token", ["host: localhost", "authorization: Bearer {token}"]),
]


@pytest.mark.attack("cross-site")
def test_a_foreign_name_in_the_target_is_foreign_whatever_the_header_says(victim: Daemon) -> None:
    request_ = b"GET http://evil.example/v1/users HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n"
    assert statuses(raw_until_closed(victim, request_)) == [401]


@pytest.mark.attack("cross-site")
@pytest.mark.parametrize(("_what", "fields"), FOREIGN, ids=lambda v: str(v)[:40])
@pytest.mark.parametrize("method", ["GET", "POST"])
def test_being_on_this_machine_is_not_lent_to_others(
    victim: Daemon, _what: str, fields: list[str], method: str
) -> None:
    token = (victim.data_dir / "token").read_text().strip()
    lines = [f"{method} /v1/users HTTP/1.1", *fields, "content-length: 2", "connection: close", "", "{}"]
    request_ = "\r\n".join(lines).replace("{token}", token).encode()
    (status,) = statuses(raw_until_closed(victim, request_))
    assert status in (401, 403)


def raw_until_closed(victim: Daemon, data: bytes) -> bytes:
    with socket.create_connection(address(victim), timeout=30) as client:
        client.sendall(data)
        pieces = []
        while piece := client.recv(65536):
            pieces.append(piece)
        return b"".join(pieces)


@pytest.mark.attack("cross-site")
def test_a_login_is_a_cookie_no_script_and_no_other_site_can_use(victim: Daemon, bob: str) -> None:
    status, headers = login(victim)
    assert status == 200
    name, *flags = headers["set-cookie"].split("; ")
    assert {"HttpOnly", "SameSite=Lax", "Path=/"} <= set(flags)
    cookie = {"cookie": name}
    for foreign in (
        {"origin": "http://evil.example"},
        {"sec-fetch-site": "cross-site"},
        {"content-type": "text/plain"},
    ):
        assert victim.call("POST", "/v1/api-keys", {"name": "x"}, {**cookie, **foreign})[0] == 403
    assert victim.call("POST", "/v1/users", {"username": "eve", "password": PASSWORD}, cookie)[0] == 403
    assert victim.call("POST", "/auth/logout", None, cookie)[0] == 200
    assert (
        victim.call("POST", "/v1/api-keys", {"name": "x"}, {**cookie, "host": "gpustack.example"})[0] == 401
    )


@pytest.mark.attack("session")
def test_a_login_is_never_one_that_somebody_else_chose(victim: Daemon, bob: str) -> None:
    chosen = "f" * 64
    form = urlencode({"username": "bob", "password": PASSWORD}).encode()
    with closing(http.client.HTTPConnection(*address(victim), timeout=30)) as connection:
        headers = {
            "content-type": "application/x-www-form-urlencoded",
            "cookie": f"gpustack_session={chosen}",
        }
        connection.request("POST", "/auth/login", form, headers)
        given = connection.getresponse().getheader("set-cookie") or ""
    assert "gpustack_session=" in given and chosen not in given


@pytest.mark.attack("guessing")
def test_wrong_names_and_wrong_passwords_are_told_the_same_and_not_for_ever(victim: Daemon, bob: str) -> None:
    answers = set()
    for name in ("bob-the-guessed", "nobody-at-all"):
        for number in range(7):
            answers.add((number, login(victim, username=name, password=f"wrong-{number}")[0]))
    assert answers == {(number, 401 if number < 5 else 429) for number in range(7)}


@pytest.mark.attack("access")
@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("GET", "/v1/users"), ("POST", "/v1/users"), ("GET", "/v1/workers"), ("POST", "/v1/models"),
        ("GET", "/v1/models/1/instances"), ("GET", "/v1/model-instances"), ("GET", "/v1/model-files"),
        ("GET", "/v1/model-instances/1/logs"), ("GET", "/debug/tasks"), ("PUT", "/debug/log_level"),
        ("POST", "/v1/workers"), ("POST", "/v1/workers/1/heartbeat"), ("GET", "/v1/workers/1/assignments"),
        ("GET", "/v1/gpu-devices"), ("GET", "/v1/dashboard"),
    ],
)  # fmt: skip
def test_a_user_manages_nothing(victim: Daemon, bob: str, method: str, path: str) -> None:
    key = {"authorization": f"Bearer {bob}"}
    assert victim.call(method, path, {}, key)[0] == 403


TRICKS = {
    "cookie": ("set-cookie", b"gpustack_session=stolen"),
    "cors": ("access-control-allow-origin", b"http://evil.example"),
    "hsts": ("strict-transport-security", b"max-age=9"),
    "elsewhere": ("alt-svc", b'h3="evil.example:443"'),
    "redirect": ("location", b"http://evil.example/"),
    "prompt": ("www-authenticate", b"Basic"),
    "fault": ("x-gpustack-fault", b"refused"),
    "worker": ("service-worker-allowed", b"/"),
}


@pytest.mark.attack("engine")
@pytest.mark.parametrize("trick", sorted(TRICKS))
def test_an_engine_does_not_speak_for_us(victim: Daemon, bob: str, hostile: str, trick: str) -> None:
    answer = ask(victim, bob, hostile, f"header {TRICKS[trick][0]}: {TRICKS[trick][1].decode()}")
    assert answer.status == 200
    assert TRICKS[trick][0] not in {name.lower() for name, _ in answer.headers}


@pytest.mark.attack("engine")
@pytest.mark.parametrize(
    "trick",
    ["garbage", "bare-lf", "two-lengths", "both-framings", "long-head", "short-body", "bad-chunk", "many-100s",
     "switch", "silent-close", "huge-usage", "deep-usage", "second-answer",
     "endless-100s", "many-fields", "old-chunks", "nested-usage"],
)  # fmt: skip
@pytest.mark.parametrize("stream", [False, True])
def test_an_engine_that_breaks_the_rules_harms_no_other_request(
    victim: Daemon, bob: str, hostile: str, trick: str, stream: bool
) -> None:
    try:
        answer = ask(victim, bob, hostile, trick, stream=stream)
        assert b"poison" not in answer.body
    except (http.client.HTTPException, ConnectionError):
        pass  # cut, so that nobody takes it for whole
    after = ask(victim, bob, hostile, "sane")
    assert after.status == 200 and b"sane" in after.body and b"poison" not in after.body


@pytest.mark.attack("engine")
def test_a_page_of_an_engine_is_nothing_to_our_origin(victim: Daemon, bob: str, hostile: str) -> None:
    answer = ask(victim, bob, hostile, "page")
    headers = {name.lower(): value for name, value in answer.headers}
    assert headers["content-security-policy"].startswith("sandbox;")
    assert headers["x-content-type-options"] == "nosniff"


class Answer:
    def __init__(self, answer: http.client.HTTPResponse) -> None:
        self.status = answer.status
        self.headers = answer.getheaders()
        self.body = answer.read()


def ask(victim: Daemon, key: str, model: str, prompt: str, *, stream: bool = False) -> Answer:
    body = json.dumps({"model": model, "stream": stream, "messages": [{"role": "user", "content": prompt}]})
    with closing(http.client.HTTPConnection(*address(victim), timeout=30)) as connection:
        headers = {"authorization": f"Bearer {key}", "content-type": "application/json"}
        connection.request("POST", "/v1/chat/completions", body, headers)
        return Answer(connection.getresponse())


MISTAKES: dict[str, dict[str, Any]] = {
    "a path of one long name": {"local_path": "/" + "a" * 3000},
    "a path with a forged line": {
        "local_path": "/x\n2026-01-01T00:00:00.000+00:00 - gpustack - INFO - forged"
    },
    "a path into a file": {"local_path": "/etc/passwd/x.gguf"},
    "an endless file": {"local_path": "/dev/zero"},
    "a claim of 5000 digits": {"env": {"GPUSTACK_MODEL_RAM_CLAIM": "9" * 5000}},
    "an infinite split": {"backend_parameters": ["--tensor-split", "inf,1e300"]},
}


@pytest.mark.attack("mistake")
@pytest.mark.parametrize("mistake", sorted(MISTAKES))
def test_an_administrators_mistake_is_a_sentence_and_ends_nothing(
    victim: Daemon, tiny_model: Path, mistake: str
) -> None:
    name = f"mistake-{sorted(MISTAKES).index(mistake)}"
    body = {"name": name, "source": "local_path", "local_path": str(tiny_model), **MISTAKES[mistake]}
    status, model = victim.call("POST", "/v1/models", body)
    if status == 200:
        victim.until(lambda: [i for i in victim.instances(name) if _has_come_out(i)], "an outcome")
        assert victim.call("DELETE", f"/v1/models/{model['id']}")[0] == 200
    else:
        assert status in (400, 422), model
    assert not re.search(r"^2026-01-01", victim.log, re.MULTILINE)


def _has_come_out(instance: dict[str, Any]) -> bool:
    told = instance["state"] in ("pending", "error") and bool(instance["state_message"])
    return told or instance["state"] == "running"


@pytest.mark.attack("mistake")
@pytest.mark.parametrize(
    "parameter",
    ["--host=0.0.0.0", "--port 1", "--api-key k", "--api_key k", "--api-key-file /x", "--ssl-key-file /x",
     "-m /etc/passwd", "--model-url http://x", "--rpc x:1"],
)  # fmt: skip
def test_an_engine_listens_where_the_worker_says(victim: Daemon, tiny_model: Path, parameter: str) -> None:
    body = {"name": "listens", "source": "local_path", "local_path": str(tiny_model)}
    status, answer = victim.call("POST", "/v1/models", {**body, "backend_parameters": [parameter]})
    assert status == 400 and "cannot be set" in answer["message"]


@pytest.mark.attack("forged-line")
@pytest.mark.parametrize(
    "name", ["a\nb", "\x1b[31m", "x" * 10_000, "", " ", "\x00"], ids=lambda n: ascii(n)[:10]
)
def test_a_name_is_something_that_can_be_shown(victim: Daemon, name: str) -> None:
    body = {"name": name, "source": "local_path", "local_path": "/m.gguf"}
    assert victim.call("POST", "/v1/models", body)[0] == 422


@pytest.mark.attack("flood")
def test_a_thousand_idle_and_half_asked_connections_keep_nobody_out(victim: Daemon, bob: str) -> None:
    with ExitStack() as held:
        for number in range(1000):
            client = held.enter_context(socket.create_connection(address(victim), timeout=30))
            client.sendall(GET[: number % len(GET)])
        assert victim.call("GET", "/v1/users/me", None, {"authorization": f"Bearer {bob}"})[0] == 200


@pytest.mark.attack("flood")
def test_watchers_that_never_read_keep_nobody_waiting(victim: Daemon, bob: str) -> None:
    with ExitStack() as held:
        for _ in range(100):
            client = held.enter_context(socket.create_connection(address(victim), timeout=30))
            client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1024)
            client.sendall(b"GET /v1/models?watch=true HTTP/1.1\r\nhost: localhost\r\n\r\n")
        for number in range(20):
            assert victim.call("POST", "/v1/api-keys", {"name": f"k{number}"})[0] == 200


@pytest.mark.attack("flood")
def test_many_names_tried_at_once_lock_nobody_else_out(victim: Daemon, bob: str) -> None:
    """The flood comes from this machine's other addresses: failures are counted by address."""

    def guess(number: int) -> None:
        with closing(
            http.client.HTTPConnection(*address(victim), timeout=60, source_address=("127.0.0.9", 0))
        ) as one:
            form = urlencode({"username": f"name-{number}", "password": "x"})
            one.request("POST", "/auth/login", form, {"content-type": "application/x-www-form-urlencoded"})
            assert one.getresponse().status in (401, 429)

    threads = [threading.Thread(target=guess, args=(number,)) for number in range(150)]
    for thread in threads:
        thread.start()
    assert login(victim)[0] == 200
    for thread in threads:
        thread.join()


def listening(pid: int) -> set[str]:
    """Addresses (in the kernel's hexadecimal) that a process listens on."""
    inodes = set()
    for entry in Path(f"/proc/{pid}/fd").iterdir():
        try:
            inodes.add(str(entry.readlink()))
        except FileNotFoundError:
            continue
    found = set()
    for table in ("tcp", "tcp6"):
        for line in Path(f"/proc/{pid}/net/{table}").read_text().splitlines()[1:]:
            fields = line.split()
            if fields[3] == "0A" and f"socket:[{fields[9]}]" in inodes:
                found.add(fields[1].partition(":")[0])
    return found


@pytest.mark.attack("access")
def test_all_that_listens_listens_on_loopback(victim: Daemon, hostile: str) -> None:
    (instance,) = victim.running("hostile")
    assert listening(victim.process.pid) == {"0100007F"}
    assert listening(instance["pid"]) == {"0100007F"}


@pytest.mark.attack("worker")
def test_the_workers_port_is_the_servers_alone(victim: Daemon, bob: str) -> None:
    (worker,) = victim.call("GET", "/v1/workers")[1]["items"]
    token = (victim.data_dir / "token").read_text().strip()
    for bearer in ("", bob, token, "x"):
        for path in ("/proxy/v1/models", "/serveLogs/1", "/modelFacts", "/debug/tasks"):
            with closing(http.client.HTTPConnection("127.0.0.1", worker["port"], timeout=30)) as connection:
                connection.request(
                    "GET", path, headers={"authorization": f"Bearer {bearer}", "x-target-port": "22"}
                )
                assert connection.getresponse().status == 401


@pytest.mark.attack("secret")
def test_no_secret_lies_where_others_read(victim: Daemon, bob: str, hostile: str) -> None:
    data = victim.data_dir
    files = [data / name for name in ("token", "jwt_secret_key", "initial_admin_password")]
    secrets = [path.read_text().strip() for path in files] + [bob.rpartition("_")[2], PASSWORD, SECRET]
    (instance,) = victim.running("hostile")
    shown = {
        "log": victim.log,
        "command of the daemon": Path(f"/proc/{victim.process.pid}/cmdline").read_text(),
        "command of the engine": Path(f"/proc/{instance['pid']}/cmdline").read_text(),
        "tasks": json.dumps(victim.call("GET", "/debug/tasks")[1]),
        "document": json.dumps(victim.call("GET", "/openapi.json")[1]),
        "as a user sees it": json.dumps(
            victim.call("GET", "/v1/models", None, {"authorization": f"Bearer {bob}"})[1]
        ),
    }
    for where, text in shown.items():
        assert not [secret for secret in secrets if secret in text], where
    environ = Path(f"/proc/{instance['pid']}/environ").read_bytes()
    own = (b"GPUSTACK_MODEL_", b"GPUSTACK_ENGINE_API_KEY=")
    left = [one for one in environ.split(b"\0") if b"GPUSTACK_" in one and not one.startswith(own)]
    assert secrets[0].encode() not in environ and not left


@pytest.mark.attack("secret")
def test_files_with_secrets_are_the_owners_alone_wherever_they_lie(victim: Daemon, hostile: str) -> None:
    """Even where the data directory itself lets others in, and whatever the umask."""
    data = victim.data_dir
    assert stat.S_IMODE(data.stat().st_mode) == 0o755
    harmless = {"server_url", "worker_name", "worker_uuid"}
    others = [
        f"{path.relative_to(data)} {stat.S_IMODE(path.stat().st_mode):o}"
        for path in sorted(data.rglob("*"))
        if path.is_file() and path.name not in harmless and path.stat().st_mode & 0o077
    ]
    assert others == []
