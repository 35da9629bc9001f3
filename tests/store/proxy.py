"""A TCP proxy before a database: rewrites what the server says, holds it back, or cuts it off."""

from __future__ import annotations

import contextlib
import socket
import threading
from collections.abc import Iterator

import attrs


@attrs.define(eq=False)
class Proxy:
    """Passes bytes on to ``target``; replacements are of equal length, as packets count theirs."""

    target: int
    old: bytes = b""
    new: bytes = b""
    _listener: socket.socket = attrs.field(factory=lambda: socket.create_server(("127.0.0.1", 0)))
    _sockets: list[socket.socket] = attrs.field(factory=list)
    _threads: list[threading.Thread] = attrs.field(factory=list)

    @property
    def port(self) -> int:
        return int(self._listener.getsockname()[1])

    def serve(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                client, _ = self._listener.accept()
                server = socket.create_connection(("127.0.0.1", self.target))
                self._sockets += [client, server]
                self._begin(self._pass, client, server, b"", b"")
                self._begin(self._pass, server, client, self.old, self.new)

    def _pass(self, source: socket.socket, sink: socket.socket, old: bytes, new: bytes) -> None:
        with contextlib.suppress(OSError):
            while data := source.recv(65536):
                sink.sendall(data.replace(old, new) if old else data)
        for end in (source, sink):
            with contextlib.suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)

    def _begin(self, target: object, *arguments: object) -> None:
        thread = threading.Thread(target=target, args=arguments)  # type: ignore[arg-type]  # any method of ours
        self._threads.append(thread)
        thread.start()

    def close(self) -> None:
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self.cut()
        for thread in self._threads:
            thread.join(10)
        for end in self._sockets:
            end.close()

    def cut(self) -> None:
        """End every connection that there is."""
        for end in self._sockets:
            with contextlib.suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)


@contextlib.contextmanager
def proxy(target: int, old: bytes = b"", new: bytes = b"") -> Iterator[Proxy]:
    """A proxy to the loopback port ``target`` for the length of the block."""
    assert len(old) == len(new)
    made = Proxy(target, old, new)
    made._begin(made.serve)
    try:
        yield made
    finally:
        made.close()
