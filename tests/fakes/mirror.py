"""A mirror of a release site on loopback: files in its folders, redirects, hashes, ranges, and things that go wrong."""

from __future__ import annotations

import contextlib
import gzip
import hashlib
import io
import re
import tarfile
import threading
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

REPOSITORY = "ggml-org/llama.cpp"
TAG = "b11549"


@dataclass
class Mirror:
    """``files`` by path; ``latest`` is what releases/latest leads to. ``log`` holds (path, range, bytes sent).

    An answer ends after ``cut_after`` bytes, and stops at ``hold_at`` bytes until ``released``.
    """

    url: str = ""
    latest: str | None = TAG
    files: dict[str, bytes] = field(default_factory=dict)
    redirects: dict[str, str] = field(default_factory=dict)
    cut_after: int | None = None
    log: list[tuple[str, str | None, int]] = field(default_factory=list)
    hold_at: int | None = None
    holding: threading.Event = field(default_factory=threading.Event)
    released: threading.Event = field(default_factory=threading.Event)
    lock: threading.Lock = field(default_factory=threading.Lock)

    def add(self, name: str, body: bytes, *, tag: str = TAG) -> None:
        """Publish a file of a version."""
        self.files[f"/{REPOSITORY}/releases/download/{tag}/{name}"] = body

    def add_hashes(self, *, tag: str = TAG, wrong: bool = False) -> None:
        """Publish a SHA256SUMS of all files of a version."""
        folder = f"/{REPOSITORY}/releases/download/{tag}/"
        lines = [
            f"{hashlib.sha256(body + (b'!' if wrong else b'')).hexdigest()}  {path.removeprefix(folder)}\n"
            for path, body in self.files.items()
            if path.startswith(folder)
        ]
        self.files[f"{folder}SHA256SUMS"] = "".join(lines).encode()

    def sent(self, ending: str) -> int:
        """How many bytes of a file have left."""
        return sum(count for path, _, count in self.log if path.endswith(ending))


def tarball(members: Mapping[str, bytes | str], *, top: str = f"llama-{TAG}") -> bytes:
    """A release's archive: texts are the targets of links, bytes the content of programs."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as tar:
        for name, content in members.items():
            member = tarfile.TarInfo(f"{top}/{name}")
            if isinstance(content, str):
                member.type, member.linkname = tarfile.SYMTYPE, content
                tar.addfile(member)
            else:
                member.size, member.mode = len(content), 0o755
                tar.addfile(member, io.BytesIO(content))
    return gzip.compress(out.getvalue(), mtime=0)


def llama_server(
    version: str = "11549", listing: str = "Available devices:\\n", body: str = "exit 2"
) -> bytes:
    """A ``llama-server`` that answers what a worker asks of one; otherwise it does ``body``."""
    return (
        "#!/bin/sh\n"
        'case "$1" in\n'
        f"--version) echo 'version: {version} (0a1b2c3d)' >&2 ;;\n"
        f"--list-devices) printf '{listing}' ;;\n"
        f"*) {body} ;;\n"
        "esac\n"
    ).encode()


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    mirror: Mirror


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: _Server

    def log_message(self, *_: Any) -> None:
        pass

    def do_GET(self) -> None:
        mirror, path = self.server.mirror, self.path.partition("?")[0]
        if path == f"/{REPOSITORY}/releases/latest" and mirror.latest is not None:
            self.answer(302, b"", {"location": f"/{REPOSITORY}/releases/tag/{mirror.latest}"})
        elif path in mirror.redirects:
            self.answer(302, b"", {"location": mirror.redirects[path]})
        elif path in mirror.files:
            self.give(path, mirror.files[path])
        else:
            self.answer(404, b"", {})

    def give(self, path: str, body: bytes) -> None:
        mirror, wanted = self.server.mirror, self.headers.get("range")
        headers = {"etag": f'"{hashlib.sha256(body).hexdigest()[:16]}"'}
        status, part = 200, body
        if found := re.fullmatch(r"bytes=(\d+)-(\d+)", wanted or ""):
            first, last = int(found[1]), min(int(found[2]), len(body) - 1)
            status, part = 206, body[first : last + 1]
            headers["content-range"] = f"bytes {first}-{last}/{len(body)}"
        cut = len(part) if mirror.cut_after is None else min(mirror.cut_after, len(part))
        with mirror.lock:
            mirror.log.append((path, wanted, cut))
        self.answer(status, part, headers, cut)

    def answer(self, status: int, body: bytes, headers: dict[str, str], cut: int | None = None) -> None:
        self.send_response(status)
        for name, value in {**headers, "content-length": str(len(body))}.items():
            self.send_header(name, value)
        self.end_headers()
        hold = self.server.mirror.hold_at
        if hold is not None and len(body) > hold:
            self.wfile.write(body[:hold])
            self.server.mirror.holding.set()
            self.server.mirror.released.wait(60)
            body = body[hold:]
        with contextlib.suppress(OSError):  # they may have left meanwhile
            self.wfile.write(body[:cut])
        if cut is not None and cut < len(body):
            self.close_connection = True


@contextlib.contextmanager
def running_mirror() -> Iterator[Mirror]:
    """A mirror that has nothing yet."""
    server = _Server(("127.0.0.1", 0), _Handler)
    server.mirror = mirror = Mirror(url=f"http://127.0.0.1:{server.server_address[1]}")
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
    thread.start()
    try:
        yield mirror
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
