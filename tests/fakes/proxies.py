"""An HTTP proxy (CONNECT too) and a SOCKS5 proxy on loopback; both lead to one address, whatever is asked for."""

from __future__ import annotations

import base64
import contextlib
import socket
import socketserver
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, Literal

Kind = Literal["http", "socks5"]
Manner = Literal["good", "garbage", "silent", "closes", "refuses"]
_PATIENCE = 20.0


@dataclass
class FakeProxy:
    """Leads to ``to``; ``asked`` holds the ``host:port`` that it was asked for. ``login`` is what it wants."""

    kind: Kind
    to: tuple[str, int]
    login: tuple[str, str] | None = None
    manner: Manner = "good"
    port: int = 0
    asked: list[str] = field(default_factory=list)
    logins: list[tuple[str, str] | None] = field(default_factory=list)
    ended: threading.Event = field(default_factory=threading.Event)


class _Server(socketserver.ThreadingTCPServer):
    daemon_threads = True
    allow_reuse_address = True
    proxy: FakeProxy


class _Handler(socketserver.BaseRequestHandler):
    server: _Server
    request: socket.socket

    def handle(self) -> None:
        self.request.settimeout(_PATIENCE)
        proxy = self.server.proxy
        with contextlib.suppress(OSError, ValueError):
            if proxy.manner == "closes":
                self.request.recv(1)
            elif proxy.manner == "garbage":
                self.request.recv(1)
                self.request.sendall(b"\xff\xffwhat?\r\n\r\n")
            elif proxy.manner == "silent":
                proxy.ended.wait(_PATIENCE)
            elif proxy.kind == "http":
                self.http(proxy)
            else:
                self.socks(proxy)

    def http(self, proxy: FakeProxy) -> None:
        file = self.request.makefile("rb")
        method, target, version = file.readline().decode("ascii").split()
        fields = []
        while (line := file.readline().strip()) != b"":
            fields.append(line)
        login = None
        for one in fields:
            name, _, value = one.partition(b": ")
            if name.lower() == b"proxy-authorization":
                user, _, password = base64.b64decode(value.removeprefix(b"Basic ")).decode().partition(":")
                login = (user, password)
        proxy.logins.append(login)
        if proxy.manner == "refuses" or login != proxy.login:
            self.request.sendall(b"HTTP/1.1 407 Proxy Authentication Required\r\nContent-Length: 0\r\n\r\n")
            return
        if method == "CONNECT":
            proxy.asked.append(target)
            with socket.create_connection(proxy.to) as there:
                self.request.sendall(b"HTTP/1.1 200 Connection established\r\n\r\n")
                _splice(self.request, there)
            return
        host, slash, path = target.removeprefix("http://").partition("/")
        proxy.asked.append(host if ":" in host else f"{host}:80")
        kept = [one for one in fields if not one.lower().startswith((b"proxy-", b"connection:"))]
        head = [f"{method} {slash or '/'}{path} {version}".encode(), *kept, b"Connection: close", b"", b""]
        with socket.create_connection(proxy.to) as there:
            there.sendall(b"\r\n".join(head))
            _splice(self.request, there)

    def socks(self, proxy: FakeProxy) -> None:
        file = self.request.makefile("rb")
        _, count = file.read(2)
        methods = file.read(count)
        wanted = 0 if proxy.login is None else 2
        if wanted not in methods:
            self.request.sendall(b"\x05\xff")
            return
        self.request.sendall(bytes((5, wanted)))
        login = None
        if wanted:
            file.read(1)
            user = file.read(file.read(1)[0]).decode()
            password = file.read(file.read(1)[0]).decode()
            login = (user, password)
        proxy.logins.append(login)
        if wanted:
            self.request.sendall(b"\x01" + (b"\x00" if login == proxy.login else b"\x01"))
            if login != proxy.login:
                return
        _, _, _, kind = file.read(4)
        host = {1: _ipv4, 3: _name, 4: _ipv6}[kind](file)
        port = int.from_bytes(file.read(2), "big")
        proxy.asked.append(f"{host}:{port}")
        if proxy.manner == "refuses":
            self.request.sendall(b"\x05\x05\x00\x01" + bytes(6))
            return
        with socket.create_connection(proxy.to) as there:
            self.request.sendall(b"\x05\x00\x00\x01" + bytes(6))
            _splice(self.request, there)


def _ipv4(file: Any) -> str:
    return socket.inet_ntoa(file.read(4))


def _ipv6(file: Any) -> str:
    return socket.inet_ntop(socket.AF_INET6, file.read(16))


def _name(file: Any) -> str:
    return str(file.read(file.read(1)[0]).decode("ascii"))


def _splice(here: socket.socket, there: socket.socket) -> None:
    def pump(source: socket.socket, sink: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while piece := source.recv(65536):
                sink.sendall(piece)
        with contextlib.suppress(OSError):
            sink.shutdown(socket.SHUT_WR)

    there.settimeout(_PATIENCE)
    back = threading.Thread(target=pump, args=(there, here), daemon=True)
    back.start()
    pump(here, there)
    back.join(_PATIENCE)


@contextlib.contextmanager
def running_fake_proxy(
    kind: Kind, to: str, *, login: tuple[str, str] | None = None, manner: Manner = "good"
) -> Iterator[FakeProxy]:
    """``to`` is ``host:port`` or an http address."""
    host, _, port = to.removeprefix("http://").rpartition(":")
    with _Server(("127.0.0.1", 0), _Handler) as server:
        server.proxy = proxy = FakeProxy(kind, (host, int(port)), login, manner)
        proxy.port = server.server_address[1]
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
        thread.start()
        try:
            yield proxy
        finally:
            proxy.ended.set()
            server.shutdown()
            thread.join(_PATIENCE)
