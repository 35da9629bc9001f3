"""Calls go through the proxy that the environment names, of whatever kind, and say so where they cannot."""

from __future__ import annotations

import ssl
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
import trio

from gpustack.artifacts.source import SourceSettings, source_for
from gpustack.domain.artifact import ModelSource, SourceKind
from gpustack.errors import GpustackError, Invalid, Unavailable
from gpustack.remote import proxy_transport
from gpustack.remote.http import RemoteConnectionError, Timeouts, open_client
from tests.certificates import make_certificate
from tests.fakes.hub import Hub
from tests.fakes.proxies import Kind, Manner, running_fake_proxy

OUTSIDE = "http://hub.invalid"
NAMES = ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "NO_PROXY")
LOGIN = ("me", "p@ss/word")


class _Handler(BaseHTTPRequestHandler):
    def log_message(self, *_: Any) -> None:
        pass

    def do_GET(self) -> None:
        self.send_response(200)
        self.send_header("content-length", "2")
        self.end_headers()
        self.wfile.write(b"ok")


@pytest.fixture(autouse=True)
def no_proxies(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in NAMES:
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.lower(), raising=False)


@pytest.fixture
def served() -> Iterator[str]:
    with ThreadingHTTPServer(("127.0.0.1", 0), _Handler) as listener:
        yield from _served(listener)


@pytest.fixture
def secured(tmp_path: Path) -> Iterator[tuple[str, Path]]:
    """A server of TLS, and the certificate to trust."""
    certfile, keyfile = make_certificate(tmp_path, "outside")
    with ThreadingHTTPServer(("127.0.0.1", 0), _Handler) as listener:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(certfile, keyfile)
        listener.socket = context.wrap_socket(listener.socket, server_side=True)
        for address in _served(listener):
            yield address, certfile


def _served(listener: ThreadingHTTPServer) -> Iterator[str]:
    listener.daemon_threads = True
    thread = threading.Thread(target=listener.serve_forever, args=(0.02,), daemon=True)
    thread.start()
    yield f"127.0.0.1:{listener.server_address[1]}"
    listener.shutdown()
    thread.join(10)


async def get(url: str, **settings: Any) -> bytes:
    with trio.fail_after(60):
        async with open_client(timeouts=Timeouts(stall=5.0), **settings) as client:
            return (await client.request("GET", url)).body


async def listed(endpoint: str = OUTSIDE) -> str:
    """The name of the one file in the repository, as the hub's own client lists it."""
    source = ModelSource(
        kind=SourceKind.HUGGING_FACE, huggingface_repo_id="me/m", huggingface_filename="m.gguf"
    )
    with trio.fail_after(60):
        found = await source_for(source.kind).resolve(
            source, SourceSettings(endpoint=endpoint, projector=None)
        )
    return str(found.main)


@pytest.mark.parametrize("form", ["http://127.0.0.1:{}", "127.0.0.1:{}", " http://127.0.0.1:{}/ "])
async def test_a_proxy_of_http_is_asked(served: str, form: str, monkeypatch: pytest.MonkeyPatch) -> None:
    with running_fake_proxy("http", served) as proxy:
        monkeypatch.setenv("ALL_PROXY", form.format(proxy.port))
        assert await get(f"{OUTSIDE}/x") == b"ok"
    assert proxy.asked == ["hub.invalid:80"]


@pytest.mark.parametrize("scheme", ["socks5", "socks5h", "socks"])
@pytest.mark.parametrize("login", [None, LOGIN])
async def test_a_proxy_of_socks_is_asked(
    served: str, scheme: str, login: tuple[str, str] | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    with running_fake_proxy("socks5", served, login=login) as proxy:
        at = "" if login is None else "me:p%40ss%2Fword@"
        monkeypatch.setenv("all_proxy", f"{scheme}://{at}127.0.0.1:{proxy.port}")
        assert await get(f"{OUTSIDE}:81/x") == b"ok"
    assert (proxy.asked, proxy.logins) == (["hub.invalid:81"], [login])


@pytest.mark.parametrize("kind", ["http", "socks5"])
async def test_what_is_encrypted_stays_so_through_a_proxy(
    kind: Kind, secured: tuple[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The certificate names 127.0.0.1 alone, which is never reached through a proxy: so it must be refused."""
    address, certfile = secured
    with running_fake_proxy(kind, address, login=LOGIN) as proxy:
        monkeypatch.setenv("HTTPS_PROXY", f"{kind}://me:p%40ss%2Fword@127.0.0.1:{proxy.port}")
        with pytest.raises(RemoteConnectionError, match="certificate is not trusted"):
            await get("https://hub.invalid/x", verify=str(certfile))
        assert (proxy.asked, proxy.logins) == (["hub.invalid:443"], [LOGIN])
        assert await get(f"https://{address}/x", verify=str(certfile)) == b"ok"
    assert len(proxy.asked) == 1


async def test_networks_and_ports_that_are_exempt_are_asked_directly(
    served: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    with running_fake_proxy("http", served) as proxy:
        monkeypatch.setenv("HTTP_PROXY", f"http://127.0.0.1:{proxy.port}")
        monkeypatch.setenv("NO_PROXY", "192.0.2.0/24,hub.invalid:81")
        assert await get("http://198.51.100.1/x") == b"ok"
        assert await get("http://hub.invalid:82/x") == b"ok"
        with pytest.raises(RemoteConnectionError):
            await get("http://hub.invalid:81/x")
        assert await get(f"http://{served}/x") == b"ok"
    assert proxy.asked == ["198.51.100.1:80", "hub.invalid:82"]


@pytest.mark.parametrize(
    ("kind", "manner", "told"),
    [
        ("http", "refuses", "407 Proxy Authentication Required"),
        ("socks5", "refuses", "Connection refused"),
        ("socks5", "garbage", "does not answer like a SOCKS proxy"),
        ("socks5", "closes", "does not answer like a SOCKS proxy"),
        ("socks5", "silent", "does not answer in time"),
    ],
)
async def test_a_proxy_that_fails_is_named_with_its_variable_to_both_libraries(
    kind: Kind, manner: Manner, told: str, served: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(proxy_transport, "_HANDSHAKE", 0.3)
    with running_fake_proxy(kind, served, manner=manner) as proxy:
        monkeypatch.setenv("ALL_PROXY", f"{kind}://me:Hunter2@127.0.0.1:{proxy.port}")
        if kind == "socks5" and manner == "refuses":
            monkeypatch.setenv("ALL_PROXY", f"{kind}://127.0.0.1:{proxy.port}")
        scheme = "https" if kind == "http" else "http"
        with pytest.raises(RemoteConnectionError, match=told) as caught:
            with trio.fail_after(60):
                async with open_client(timeouts=Timeouts(stall=0.3)) as client:
                    await client.request("GET", f"{scheme}://hub.invalid/x")
        assert "ALL_PROXY" in str(caught.value) and "Hunter2" not in str(caught.value)
        with pytest.raises(Unavailable) as listing:
            await listed(f"{scheme}://hub.invalid")
        assert "Hunter2" not in str(listing.value)
        if manner != "silent":
            assert told in str(listing.value) and "ALL_PROXY" in str(listing.value)


async def test_a_proxy_where_nobody_listens_is_named(free_port: int, monkeypatch: pytest.MonkeyPatch) -> None:
    for kind in ("http", "socks5"):
        monkeypatch.setenv("ALL_PROXY", f"{kind}://me:Hunter2@127.0.0.1:{free_port}")
        for url in (f"{OUTSIDE}/x", "https://hub.invalid/x"):
            with pytest.raises(RemoteConnectionError, match="Connection refused") as caught:
                await get(url)
            assert f"{kind}://127.0.0.1:{free_port}, of ALL_PROXY" in str(caught.value)
            assert "Hunter2" not in str(caught.value)


@pytest.mark.parametrize(
    "text",
    [
        "socks4://127.0.0.1:1080",
        "ftp://x",
        "http://me:Hunter2/x@proxy",
        "http://a b",
        "http://[::1",
        '"http://x"',
    ],
)
async def test_a_variable_that_names_no_proxy_is_a_sentence_and_nothing_goes_past_it(
    served: str, text: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ALL_PROXY", text)
    for attempt in (get(f"{OUTSIDE}/x"), listed()):
        with pytest.raises(GpustackError, match="cannot be reached: ALL_PROXY ") as caught:
            await attempt
        assert isinstance(caught.value, Unavailable) and "Hunter2" not in str(caught.value)
    assert await get(f"http://{served}/x") == b"ok", "this machine is not behind it"


@pytest.mark.parametrize("kind", ["http", "socks5"])
async def test_the_hub_s_own_client_takes_the_same_ways(
    hub: Hub, kind: Kind, monkeypatch: pytest.MonkeyPatch
) -> None:
    hub.add("me/m", {"m.gguf": b"four"})
    with running_fake_proxy(kind, hub.url) as proxy:
        monkeypatch.setenv("ALL_PROXY", f"{kind}://127.0.0.1:{proxy.port}")
        assert await listed() == "m.gguf"
        assert proxy.asked == ["hub.invalid:80"]
        monkeypatch.setenv("NO_PROXY", "hub.invalid:80")
        with pytest.raises(Unavailable, match="cannot be reached"):
            await listed()
        assert proxy.asked == ["hub.invalid:80"]
        assert await listed(hub.url) == "m.gguf"


async def test_certificates_that_are_not_there_are_a_sentence(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    empty = tmp_path / "empty.pem"
    empty.touch()
    for name, told in ((str(tmp_path / "none.pem"), "No such file"), (str(empty), "")):
        monkeypatch.setenv("SSL_CERT_FILE", name)
        with pytest.raises(
            Invalid, match=f"SSL_CERT_FILE names {name}, which holds no certificates .*{told}"
        ):
            open_client()
