"""The front speaks TLS, its certificate changes under way, and workers check who they talk to."""

from __future__ import annotations

import contextlib
import json
import shutil
import socket
import ssl
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.certificates import make_certificate
from tests.daemon import Daemon, daemon

ASK = {"model": "tiny", "messages": [{"role": "user", "content": "Who are you?"}]}


@pytest.fixture
def pair(tmp_path: Path) -> tuple[Path, Path]:
    first = make_certificate(tmp_path / "first", "first")
    certfile, keyfile = tmp_path / "server.crt", tmp_path / "server.key"
    shutil.copy(first[0], certfile)
    shutil.copy(first[1], keyfile)
    return certfile, keyfile


@pytest.fixture
def secured(tmp_path: Path, pair: tuple[Path, Path]) -> Iterator[Daemon]:
    with daemon(
        tmp_path / "data", "--ssl-certfile", str(pair[0]), "--ssl-keyfile", str(pair[1]), trust=pair[0]
    ) as one:
        yield one


def shown(one: Daemon) -> bytes:
    """The certificate a new connection is shown."""
    host, port = one.url.removeprefix("https://").split(":")
    context = ssl._create_unverified_context()
    with (
        socket.create_connection((host, int(port)), timeout=30) as plain,
        context.wrap_socket(plain) as wrapped,
    ):
        found = wrapped.getpeercert(binary_form=True)
    assert found is not None
    return found


def replace(pair: tuple[Path, Path], new: tuple[Path, Path]) -> None:
    shutil.copy(new[1], pair[1])
    shutil.copy(new[0], pair[0])


def test_the_embedded_worker_serves_models_behind_tls(secured: Daemon, tiny_model: Path) -> None:
    assert secured.url.startswith("https://")
    body = {"name": "tiny", "source": "local_path", "local_path": str(tiny_model)}
    assert secured.call("POST", "/v1/models", body)[0] == 200
    secured.running("tiny")
    assert secured.call("POST", "/v1/chat/completions", ASK)[0] == 200


def test_a_renewed_certificate_is_shown_to_new_connections_and_cuts_no_stream(
    secured: Daemon, pair: tuple[Path, Path], tmp_path: Path
) -> None:
    context = ssl.create_default_context(cafile=str(pair[0]))
    request = urllib.request.Request(f"{secured.url}/v1/models?watch=true")
    before = shown(secured)
    with urllib.request.urlopen(request, timeout=60, context=context) as stream:
        second = make_certificate(tmp_path / "second", "second")
        replace(pair, second)
        secured.until(lambda: shown(secured) != before, "the new certificate")
        secured.trust = second[0]
        body = {"name": "late", "source": "local_path", "local_path": "/m.gguf", "replicas": 0}
        assert secured.call("POST", "/v1/models", body)[0] == 200
        events = (line for line in stream if line.strip())  # a blank line is a sign of life
        assert json.loads(next(events))["data"]["name"] == "late"
    # The worker inside goes on over new connections too.
    secured.until(lambda: secured.call("GET", "/v1/workers")[1]["items"][0]["state"] == "ready", "the worker")


def test_a_bad_pair_keeps_the_one_before_and_says_so(secured: Daemon, pair: tuple[Path, Path]) -> None:
    before = shown(secured)
    pair[0].write_text("-----BEGIN CERTIFICATE-----\nnonsense\n-----END CERTIFICATE-----\n")
    secured.until(lambda: "not used" in secured.log, "the sentence in the log")
    assert shown(secured) == before


def test_a_worker_trusts_what_ssl_cert_file_says_and_nothing_else(
    tmp_path: Path, pair: tuple[Path, Path]
) -> None:
    arguments = ("--ssl-certfile", str(pair[0]), "--ssl-keyfile", str(pair[1]), "--disable-worker")
    with daemon(tmp_path / "data", *arguments, trust=pair[0]) as server:
        token = (server.data_dir / "token").read_text().strip()
        join = ("--server-url", server.url, "--token", token, "--worker-ip", "127.0.0.1")
        with daemon(tmp_path / "stranger", *join) as worker:
            worker.until(lambda: "cannot be reached" in worker.log, "the refusal to trust")
        assert server.call("GET", "/v1/workers")[1]["items"] == []
        with daemon(tmp_path / "friend", *join, env={"SSL_CERT_FILE": str(pair[0])}):
            server.until(lambda: server.call("GET", "/v1/workers")[1]["items"], "the worker")


def test_a_pair_that_does_not_belong_together_is_refused_at_the_start(tmp_path: Path) -> None:
    first, second = make_certificate(tmp_path, "first"), make_certificate(tmp_path, "second")
    ended = subprocess.run(
        [sys.executable, "-m", "gpustack", "start", "--data-dir", str(tmp_path / "data"), "--port", "0",
         "--ssl-certfile", str(first[0]), "--ssl-keyfile", str(second[1])],
        capture_output=True, text=True, timeout=60,
    )  # fmt: skip
    assert ended.returncode == 1
    assert "--ssl-certfile" in ended.stderr and "Traceback" not in ended.stderr


def test_plain_http_on_the_tls_port_is_not_served(secured: Daemon) -> None:
    host, port = secured.url.removeprefix("https://").split(":")
    with socket.create_connection((host, int(port)), timeout=30) as plain:
        plain.sendall(b"GET /healthz HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n")
        with contextlib.suppress(ConnectionResetError):
            assert b"200 OK" not in plain.recv(4096)
