"""A model hub on loopback with the paths, headers and errors that `huggingface_hub` meets on the real one.

    python -m tests.fakes.hub --root DIR --port 8090      then    HF_ENDPOINT=http://127.0.0.1:8090

serves ``DIR/<owner>/<name>/...``. In tests, ``hub.add("me/model", {"model.gguf": path})`` and
``hub.fail("reset", at=1000)`` make it up as they go, and ``hub.log`` tells what was asked. Large files come from
a second listener (the CDN) that refuses requests carrying the hub's token, as the real one does.
"""

from __future__ import annotations

import argparse
import contextlib
import fnmatch
import json
import os
import re
import socket
import struct
import sys
import threading
import time
import urllib.parse
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, Literal

from tests.fakes.repository import Repository, StoredFile, described, is_large, listing, sibling

LONGEST_WAIT = 30.0
PAGE = 1000

FaultKind = Literal["reset", "truncate", "corrupt", "hold", "refuse", "wrong_hash", "ignore_range"]


@dataclass
class Fault:
    """Something that goes wrong ``times`` times with files whose path matches ``path``.

    reset, truncate: the body ends by RST, or as if all were well, after ``at`` bytes of this response;
    corrupt: the byte at offset ``at`` of the file is another; hold: the body stops after ``at`` bytes until
    `Hub.release`; refuse: the answer is ``status`` with Retry-After; wrong_hash: another hash is announced;
    ignore_range: a request for a range gets the whole file with 200.
    """

    kind: FaultKind
    path: str = "*"
    at: int = 0
    times: int = 1
    status: int = 503
    retry_after: int = 0


@dataclass
class Request:
    """A request as it was answered. It is noted before the client can see the answer, and grows with it."""

    method: str
    route: str  # api, resolve or cdn
    path: str  # the file's path where there is one, else the URL's
    range: str | None
    authorized: bool
    status: int
    sent: int = 0  # bytes of the body that were handed to the socket
    complete: bool = False  # all that was asked for, or nothing but a head


@dataclass
class Hub:
    """The hub as a test sees it. Start it with `running_hub`."""

    url: str = ""
    cdn_url: str = ""
    tokens: dict[str, set[str]] = field(default_factory=dict)  # token -> repositories it may read ("*": all)
    repositories: dict[str, Repository] = field(default_factory=dict)
    log: list[Request] = field(default_factory=list)
    faults: list[Fault] = field(default_factory=list)
    rate: float | None = None  # bytes a second and connection
    page: int = PAGE
    tells_sizes: bool = True  # in listings
    tells_ranges: bool = True  # by Content-Range
    heads: bool = True  # answers HEAD of files
    links: bool = True  # X-Linked-Size and X-Linked-Etag
    tags: Callable[[], str] | None = None  # an ETag of its own for each answer of the CDN
    xet: Callable[[str], dict[str, str]] | None = None  # headers of a file that is in Xet too, by its SHA-256
    changed: threading.Condition = field(default_factory=threading.Condition)
    released: threading.Event = field(default_factory=threading.Event)
    holding: int = 0

    def add(
        self,
        name: str,
        files: Mapping[str, bytes | Path],
        *,
        branch: str = "main",
        gated: bool = False,
        private: bool = False,
    ) -> str:
        """Make a repository, or put a new commit on it; returns the commit's hash."""
        repository = self.repositories.setdefault(name, Repository(name))
        repository.gated, repository.private = gated, private
        return repository.commit(files, branch)

    def fail(self, kind: FaultKind, **details: Any) -> Fault:
        """From now on something goes wrong; see `Fault`."""
        fault = Fault(kind, **details)
        self.faults.append(fault)
        return fault

    def release(self) -> None:
        """Let bodies that are held go on."""
        self.released.set()

    def wait(self, until: Callable[[], bool], within: float = LONGEST_WAIT) -> None:
        """Block until something of the log, or ``holding``, makes ``until`` true; raises AssertionError."""
        with self.changed:
            assert self.changed.wait_for(until, within), f"never came: {self.log}"

    def bodies(self, path: str = "*") -> list[Request]:
        """The requests that fetched bytes of files matching ``path``, whole or in part."""
        return [
            request
            for request in self.log
            if request.method == "GET"
            and request.status in (200, 206)
            and request.route in ("cdn", "resolve")
            and fnmatch.fnmatch(request.path, path)
        ]

    def full_downloads(self, path: str = "*") -> int:
        """How often a matching file left us completely in one response."""
        return sum(request.status == 200 and request.complete for request in self.bodies(path))

    def take(self, kind: FaultKind, path: str) -> Fault | None:
        """Use up one fault of that kind for ``path``."""
        with self.changed:
            for fault in self.faults:
                if fault.kind == kind and fault.times > 0 and fnmatch.fnmatch(path, fault.path):
                    fault.times -= 1
                    return fault
        return None

    def note(self, request: Request) -> None:
        with self.changed:
            self.log.append(request)
            self.changed.notify_all()

    def hold(self) -> None:
        with self.changed:
            self.holding += 1
            self.changed.notify_all()
        self.released.wait(LONGEST_WAIT)
        with self.changed:
            self.holding -= 1
            self.changed.notify_all()


class Listener(ThreadingHTTPServer):
    """One of the hub's two ports."""

    daemon_threads = True
    request_queue_size = 1024

    def __init__(self, port: int, hub: Hub, handler: type[Handler]) -> None:
        super().__init__(("127.0.0.1", port), handler)
        self.hub = hub

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Clients may leave whenever they like; everything else is shown as usual."""
        if not isinstance(sys.exc_info()[1], ConnectionError):
            super().handle_error(request, client_address)


class Refusal(Exception):
    """An error answer: status, the hub's X-Error-Code and its message."""

    def __init__(self, status: int, code: str | None, message: str, **headers: str) -> None:
        self.status, self.code, self.message, self.headers = status, code, message, headers


class Handler(BaseHTTPRequestHandler):
    """What both listeners have in common: the log, errors, and bodies with ranges and faults."""

    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    server: Listener

    @property
    def hub(self) -> Hub:
        return self.server.hub

    def log_message(self, format: str, *args: Any) -> None:
        if os.environ.get("FAKE_HUB_LOG"):
            print(format % args, file=sys.stderr, flush=True)

    def answer(self) -> None:
        """Overridden: answer ``self.path`` or raise Refusal."""
        raise NotImplementedError

    def do_GET(self) -> None:
        self._meet()

    def do_HEAD(self) -> None:
        self._meet()

    def do_POST(self) -> None:
        self._meet()

    def _meet(self) -> None:
        length = int(self.headers.get("Content-Length", 0))
        self.body = self.rfile.read(length) if length else b""
        parts = urllib.parse.urlsplit(self.path)
        self.url_path = parts.path
        self.query = dict(urllib.parse.parse_qsl(parts.query))
        self.route, self.file_path = "api", self.url_path
        try:
            try:
                self.answer()
            except Refusal as refusal:
                self._refuse(refusal)
        except ConnectionError:
            self.close_connection = True
            self.noted.complete = False

    def _refuse(self, refusal: Refusal) -> None:
        headers = {"X-Error-Message": refusal.message, **refusal.headers}
        if refusal.code:
            headers["X-Error-Code"] = refusal.code
        self.send_json({"error": refusal.message}, status=refusal.status, **headers)

    def refuse_as_told(self, path: str) -> None:
        fault = self.hub.take("refuse", path)
        if fault is not None:
            headers = {"Retry-After": str(fault.retry_after)}
            raise Refusal(fault.status, None, f"{fault.status}, as told", **headers)

    def head(self, status: int, headers: Mapping[str, str]) -> None:
        self.noted = Request(
            method=self.command,
            route=self.route,
            path=self.file_path,
            range=self.headers.get("Range"),
            authorized="Authorization" in self.headers,
            status=status,
            complete=self.command == "HEAD" or headers.get("Content-Length") == "0",
        )
        self.hub.note(self.noted)
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), value)
        self.end_headers()

    def send_json(self, value: Any, status: int = 200, **headers: str) -> None:
        body = json.dumps(value).encode()
        self.head(status, {"Content-Type": "application/json", "Content-Length": str(len(body)), **headers})
        if self.command != "HEAD":
            self.noted.complete = True
            self._send_block(body)

    def send_file(self, path: str, file: StoredFile, headers: Mapping[str, str]) -> None:
        """The file or the range of it that is asked for, with whatever is to go wrong."""
        start, end = 0, file.size
        asked = self.headers.get("Range")
        if asked and not self.hub.take("ignore_range", path):
            start, end = self._range(asked, file.size)
        partial = bool(asked) and (start, end) != (0, file.size)
        sent = {**headers, "Accept-Ranges": "bytes", "Content-Length": str(end - start)}
        sent["Content-Type"] = "application/octet-stream"
        if partial and self.hub.tells_ranges:
            sent["Content-Range"] = f"bytes {start}-{end - 1}/{file.size}"
        self.head(206 if partial else 200, sent)
        if self.command != "HEAD":
            self._send_body(path, file, start, end)

    def _range(self, asked: str, size: int) -> tuple[int, int]:
        found = re.fullmatch(r"bytes=(\d*)-(\d*)", asked.strip())
        if found is None or not any(found.groups()):
            raise Refusal(400, None, f"only one range at a time: {asked}")
        first, last = found.groups()
        if not first:
            return max(0, size - int(last)), size
        start = int(first)
        if start >= size:
            raise Refusal(416, None, "Range Not Satisfiable", Content_Range=f"bytes */{size}")
        return start, min(size, int(last) + 1) if last else size

    def _send_body(self, path: str, file: StoredFile, start: int, end: int) -> None:
        cuts = {kind: self.hub.take(kind, path) for kind in ("reset", "truncate", "hold")}
        corrupt = self.hub.take("corrupt", path)
        stops = sorted({end, *(min(end, start + fault.at) for fault in cuts.values() if fault)})
        at = start
        for stop in stops:
            for block in file.blocks(at, stop):
                at += len(block)
                self.noted.complete = at == end
                self._send_block(_spoilt(block, at - len(block), corrupt))
            if cuts["hold"] and at == min(end, start + cuts["hold"].at):
                self.hub.hold()
            if cuts["reset"] and at == min(end, start + cuts["reset"].at):
                self._reset()
                return
            if cuts["truncate"] and at == min(end, start + cuts["truncate"].at):
                self.close_connection = True
                return

    def _send_block(self, block: bytes) -> None:
        self.noted.sent += len(block)
        self.wfile.write(block)
        if self.hub.rate:
            time.sleep(len(block) / self.hub.rate)

    def _reset(self) -> None:
        self.close_connection = True
        self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        os.close(self.connection.detach())  # close() would wait for the reader and the writer made of it


def _spoilt(block: bytes, at: int, fault: Fault | None) -> bytes:
    if fault is None or not at <= fault.at < at + len(block):
        return block
    spoilt = bytearray(block)
    spoilt[fault.at - at] ^= 0xFF
    return bytes(spoilt)


class HubHandler(Handler):
    """The hub itself: listings, and what leads to a file."""

    ROUTES = (
        (r"/api/whoami-v2", "whoami"),
        (r"/api/models", "search"),
        (r"/api/models/(?P<repo>[^/]+/[^/]+)", "model"),
        (r"/api/models/(?P<repo>[^/]+/[^/]+)/refs", "refs"),
        (r"/api/models/(?P<repo>[^/]+/[^/]+)/revision/(?P<revision>[^/]+)", "model"),
        (r"/api/models/(?P<repo>[^/]+/[^/]+)/tree/(?P<revision>[^/]+)(?P<inside>/.*)?", "tree"),
        (r"/api/models/(?P<repo>[^/]+/[^/]+)/paths-info/(?P<revision>[^/]+)", "paths_info"),
        (r"/api/resolve-cache/models/(?P<repo>[^/]+/[^/]+)/(?P<revision>[^/]+)/(?P<path>.+)", "small"),
        (r"/(?P<repo>[^/]+/[^/]+)/resolve/(?P<revision>[^/]+)/(?P<path>.+)", "resolve"),
    )

    def answer(self) -> None:
        for pattern, name in self.ROUTES:
            found = re.fullmatch(pattern, self.url_path)
            if found is not None:
                parts = {key: urllib.parse.unquote(value or "") for key, value in found.groupdict().items()}
                if name != "small" and name != "resolve":
                    self.refuse_as_told(self.url_path)
                getattr(self, f"tell_{name}")(**parts)
                return
        raise Refusal(404, None, "Not Found")

    # --- who may ------------------------------------------------------------------------------------------

    def _token(self) -> str | None:
        found = self.headers.get("Authorization", "").removeprefix("Bearer ").strip()
        if found and found not in self.hub.tokens:
            raise Refusal(401, None, "Invalid credentials in Authorization header")
        return found or None

    def _may_read(self, repository: Repository) -> bool:
        token = self._token()
        readable = self.hub.tokens.get(token, set()) if token else set()
        return "*" in readable or repository.name in readable

    def _repository(self, name: str) -> Repository:
        repository = self.hub.repositories.get(name)
        if repository is None or (repository.private and not self._may_read(repository)):
            if self._token() is None:
                raise Refusal(401, "RepoNotFound", "Invalid username or password.")
            raise Refusal(404, "RepoNotFound", "Repository not found")
        self._token()  # a wrong token is refused even where none is needed
        return repository

    def _files(self, repository: Repository, revision: str) -> tuple[str, dict[str, StoredFile]]:
        commit = repository.find(revision)
        if commit is None:
            raise Refusal(404, "RevisionNotFound", f"Invalid rev id: {revision}")
        return commit, repository.commits[commit]

    # --- listings -----------------------------------------------------------------------------------------

    def tell_whoami(self) -> None:
        if self._token() is None:
            raise Refusal(401, None, "Invalid username or password.")
        self.send_json({"type": "user", "name": "tester", "fullname": "Tester", "orgs": []})

    def tell_search(self) -> None:
        wanted = self.query.get("search", "").lower()
        found = [
            self._model(repository, repository.main, blobs=False)
            for name, repository in sorted(self.hub.repositories.items())
            if wanted in name.lower() and not repository.private
        ]
        self.send_json(found[: int(self.query.get("limit", len(found) or 1))])

    def tell_model(self, repo: str, revision: str = "main") -> None:
        repository = self._repository(repo)
        commit, _ = self._files(repository, revision)
        self.send_json(self._model(repository, commit, blobs="blobs" in self.query))

    def _model(self, repository: Repository, commit: str, *, blobs: bool) -> dict[str, Any]:
        files = repository.commits[commit]
        return {
            "_id": commit[:24],
            "id": repository.name,
            "modelId": repository.name,
            "author": repository.name.split("/")[0],
            "sha": commit,
            "lastModified": "2026-01-01T00:00:00.000Z",
            "createdAt": "2026-01-01T00:00:00.000Z",
            "private": repository.private,
            "gated": "manual" if repository.gated else False,
            "disabled": False,
            "downloads": 0,
            "likes": 0,
            "tags": ["gguf"] if any(path.endswith(".gguf") for path in files) else [],
            "siblings": [
                sibling(path, file, blobs=blobs and self.hub.tells_sizes) for path, file in files.items()
            ],
        }

    def tell_refs(self, repo: str) -> None:
        branches = [
            {"name": name, "ref": f"refs/heads/{name}", "targetCommit": commit}
            for name, commit in self._repository(repo).branches.items()
        ]
        self.send_json({"branches": branches, "tags": [], "converts": []})

    def tell_tree(self, repo: str, revision: str, inside: str) -> None:
        _, files = self._files(self._repository(repo), revision)
        recursive = self.query.get("recursive", "").lower() in ("true", "1")
        entries = listing(files, inside, recursive=recursive)
        if inside.strip("/") and not entries:
            raise Refusal(404, "EntryNotFound", f"{inside.strip('/')} does not exist on {revision}")
        start = int(self.query.get("cursor", 0))
        headers = {}
        if start + self.hub.page < len(entries):
            following = urllib.parse.urlencode({**self.query, "cursor": start + self.hub.page})
            headers["Link"] = f'<{self.hub.url}{self.url_path}?{following}>; rel="next"'
        self.send_json(entries[start : start + self.hub.page], **headers)

    def tell_paths_info(self, repo: str, revision: str) -> None:
        _, files = self._files(self._repository(repo), revision)
        if self.headers.get_content_type() == "application/json":
            wanted = json.loads(self.body)["paths"]
        else:
            wanted = urllib.parse.parse_qs(self.body.decode()).get("paths", [])
        self.send_json([described(path, files[path]) for path in wanted if path in files])

    # --- files --------------------------------------------------------------------------------------------

    def _file(self, repo: str, revision: str, path: str) -> tuple[str, StoredFile]:
        self.route, self.file_path = "resolve", path
        if self.command == "HEAD" and not self.hub.heads:
            raise Refusal(405, None, "Method Not Allowed")
        self.refuse_as_told(path)
        repository = self._repository(repo)
        if repository.gated and not self._may_read(repository):
            status = 401 if self._token() is None else 403
            raise Refusal(status, "GatedRepo", f"Access to model {repo} is restricted.")
        commit, files = self._files(repository, revision)
        if path not in files:
            raise Refusal(404, "EntryNotFound", "Entry not found", X_Repo_Commit=commit)
        return commit, files[path]

    def tell_resolve(self, repo: str, revision: str, path: str) -> None:
        commit, file = self._file(repo, revision, path)
        if not is_large(path, file):
            place = f"/api/resolve-cache/models/{repo}/{commit}/{urllib.parse.quote(path)}"
            self.head(307, {"Location": place, "X-Repo-Commit": commit, "Content-Length": "0"})
            return
        announced = "0" * 64 if self.hub.take("wrong_hash", path) else file.sha256
        query = urllib.parse.urlencode({"repo": repo, "revision": commit, "path": path, "signature": "any"})
        headers = {
            "Location": f"{self.hub.cdn_url}/repos/{file.sha256}?{query}",
            "X-Repo-Commit": commit,
            **(
                {"X-Linked-Etag": f'"{announced}"', "X-Linked-Size": str(file.size)} if self.hub.links else {}
            ),
            "Content-Length": "0",
            **(self.hub.xet(file.sha256) if self.hub.xet is not None else {}),
        }
        self.head(302, headers)

    def tell_small(self, repo: str, revision: str, path: str) -> None:
        commit, file = self._file(repo, revision, path)
        announced = "0" * 40 if self.hub.take("wrong_hash", path) else file.blob
        self.send_file(path, file, {"X-Repo-Commit": commit, "ETag": f'"{announced}"'})


class CdnHandler(Handler):
    """The content network: bytes by signed address, and no business with tokens."""

    def answer(self) -> None:
        self.route, self.file_path = "cdn", self.query.get("path", "")
        if self.command == "HEAD" and not self.hub.heads:
            raise Refusal(405, None, "Method Not Allowed")
        if "Authorization" in self.headers:
            raise Refusal(400, None, "Only one auth mechanism allowed")
        self.refuse_as_told(self.file_path)
        repository = self.hub.repositories.get(self.query.get("repo", ""))
        files = repository.commits.get(self.query.get("revision", ""), {}) if repository else {}
        if self.file_path not in files:
            raise Refusal(403, None, "AccessDenied")
        file = files[self.file_path]
        tag = file.sha256[:32] if self.hub.tags is None else self.hub.tags()
        self.send_file(self.file_path, file, {"ETag": f'"{tag}"'})


@contextlib.contextmanager
def running_hub(port: int = 0) -> Iterator[Hub]:
    """A hub listening on loopback, served by threads of this process."""
    hub = Hub()
    listeners = [Listener(port, hub, HubHandler), Listener(0, hub, CdnHandler)]
    # another host name, as in the world: clients judge by it whether to follow a redirect and to send the token
    names = ("127.0.0.1", "localhost")
    hub.url, hub.cdn_url = (
        f"http://{name}:{listener.server_address[1]}" for name, listener in zip(names, listeners, strict=True)
    )
    threads = [threading.Thread(target=one.serve_forever, args=(0.02,), daemon=True) for one in listeners]
    for thread in threads:
        thread.start()
    try:
        yield hub
    finally:
        hub.release()
        for listener, thread in zip(listeners, threads, strict=True):
            listener.shutdown()
            thread.join(10)
            listener.server_close()


def add_folder(hub: Hub, root: Path) -> None:
    """Put every ``root/<owner>/<name>`` on the hub."""
    for folder in sorted(root.glob("*/*")):
        if folder.is_dir():
            files = {p.relative_to(folder).as_posix(): p for p in folder.rglob("*") if p.is_file()}
            hub.add(folder.relative_to(root).as_posix(), files)


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.fakes.hub", description=__doc__)
    parser.add_argument("--root", type=Path, required=True, help="folder of <owner>/<name>/<files>")
    parser.add_argument("--port", type=int, default=0)
    parser.add_argument("--rate", type=float, help="bytes a second and connection")
    parser.add_argument("--gated", metavar="OWNER/NAME", action="append", default=[])
    parser.add_argument("--token", help="a token that may read everything")
    asked = parser.parse_args()
    with running_hub(asked.port) as hub:
        add_folder(hub, asked.root)
        hub.rate = asked.rate
        if asked.token:
            hub.tokens[asked.token] = {"*"}
        for name in asked.gated:
            hub.repositories[name].gated = True
        print(f"listening on {hub.url}", flush=True)
        with contextlib.suppress(KeyboardInterrupt):
            threading.Event().wait()


if __name__ == "__main__":
    main()
