"""A proxy of the environment is used for the world outside, and never within the cluster."""

from __future__ import annotations

import contextlib
import threading
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from tests.daemon import daemon
from tests.fakes.hub import Hub
from tests.fakes.proxies import running_fake_proxy

OUTSIDE = "http://hub.invalid"
TOKEN = "a-token-that-the-tests-have-chosen"


@dataclass
class Proxy:
    """Passes what is asked of ``hub.invalid`` on to ``to``; ``log`` holds the hosts that were asked for."""

    to: str
    url: str = ""
    log: list[str] = field(default_factory=list)


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    proxy: Proxy


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: _Server

    def log_message(self, *_: Any) -> None:
        pass

    def do_GET(self) -> None:
        proxy, asked = self.server.proxy, urllib.parse.urlsplit(self.path)
        proxy.log.append(asked.netloc)
        url = proxy.to + urllib.parse.urlunsplit(("", "", asked.path, asked.query, ""))
        headers = {name: self.headers[name] for name in ("Range", "Authorization") if name in self.headers}
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        try:
            with opener.open(urllib.request.Request(url, headers=headers), timeout=30) as answer:
                self.pass_on(answer.status, answer.headers, answer.read())
        except urllib.error.HTTPError as error:
            with error:
                self.pass_on(error.code, error.headers, error.read())

    def do_CONNECT(self) -> None:
        self.server.proxy.log.append(self.path)
        self.send_error(502)

    def pass_on(self, status: int, headers: Any, body: bytes) -> None:
        self.send_response(status)
        for name in ("Content-Type", "Content-Range", "ETag"):
            if name in headers:
                self.send_header(name, headers[name])
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


@contextlib.contextmanager
def running_proxy(to: str) -> Iterator[Proxy]:
    server = _Server(("127.0.0.1", 0), _Handler)
    server.proxy = proxy = Proxy(to, f"http://127.0.0.1:{server.server_address[1]}")
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
    thread.start()
    try:
        yield proxy
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def ended(tmp_path: Path, env: dict[str, str]) -> str:
    """In which state a download from the hub outside has ended, on a worker of its own with that environment."""
    with daemon(tmp_path / "server", "--disable-worker", "--token", TOKEN) as one:
        given = ("--server-url", one.url, "--token", TOKEN, "--worker-ip", "127.0.0.1")
        with daemon(tmp_path / "worker", *given, env=env):
            (worker,) = one.until(lambda: one.call("GET", "/v1/workers")[1]["items"], "the worker")
            body = {
                "source": "huggingface",
                "huggingface_repo_id": "me/small",
                "huggingface_filename": "config.txt",
                "worker_id": worker["id"],
            }
            status, made = one.call("POST", "/v1/model-files", body)
            assert status == 200, made

            def end() -> str:
                state = one.call("GET", f"/v1/model-files/{made['id']}")[1]["state"]
                return str(state) if state in ("ready", "error") else ""

            return str(one.until(end, "the end of the download"))


@pytest.mark.parametrize("variable", ["HTTP_PROXY", "ALL_PROXY", "HTTPS_PROXY"])
def test_the_hub_is_asked_through_the_proxy_and_the_cluster_never(
    tmp_path: Path, hub: Hub, variable: str
) -> None:
    """Small files only: the hub's second listener is on the loopback, where no redirect from outside may lead.

    What is encrypted is not ours to answer: this proxy is asked for the way to the hub, and has none.
    """
    hub.add("me/small", {"config.txt": b"small"})
    outside = OUTSIDE.replace("http:", "https:") if variable == "HTTPS_PROXY" else OUTSIDE
    with running_proxy(hub.url) as proxy:
        state = ended(tmp_path, {variable: proxy.url, "HF_ENDPOINT": outside})
    if variable == "HTTPS_PROXY":
        assert (state, set(proxy.log)) == ("error", {"hub.invalid:443"})
    else:
        assert (state, set(proxy.log)) == ("ready", {"hub.invalid"})


def test_who_is_exempt_is_asked_without_the_proxy(tmp_path: Path, hub: Hub) -> None:
    """There is no such host to be reached directly."""
    with running_proxy(hub.url) as proxy:
        env = {"HTTP_PROXY": proxy.url, "NO_PROXY": "hub.invalid", "HF_ENDPOINT": OUTSIDE}
        assert (ended(tmp_path, env), proxy.log) == ("error", [])


def test_a_proxy_of_socks_leads_to_the_hub_and_one_that_is_none_ends_in_a_sentence(
    tmp_path: Path, hub: Hub
) -> None:
    """Listing and files alike; neither ends the worker."""
    hub.add("me/small", {"config.txt": b"small"})
    with running_fake_proxy("socks5", hub.url) as proxy:
        env = {"ALL_PROXY": f"socks5h://127.0.0.1:{proxy.port}", "HF_ENDPOINT": OUTSIDE}
        assert ended(tmp_path / "one", env) == "ready"
        assert set(proxy.asked) == {"hub.invalid:80"}
        env["ALL_PROXY"] = f"socks4://127.0.0.1:{proxy.port}"
        assert ended(tmp_path / "two", env) == "error"
