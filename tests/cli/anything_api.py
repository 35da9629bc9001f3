"""A server on loopback that has one of everything, called x, and notes what it is sent."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread
from typing import Any

import attrs

ITEM = {
    "id": 7,
    "worker_id": 6,
    "name": "x",
    "username": "x",
    "state": "ready",
    "replicas": 1,
    "ready_replicas": 1,
    "source": "huggingface",
    "huggingface_repo_id": "a/b",
    "labels": {"os": "linux"},
    "barred": True,
    "is_admin": False,
    "items": [],
    "kept": "",
    "freed": 0,
    "versions": {},
    "default_version": "1",
    "value": "gpustack_a_b",
    "resolved_paths": [],
}


@attrs.define(eq=False)
class AnythingApi:
    """A server that has one of everything, called x, and holds what it is sent."""

    url: str = ""
    sent: list[str] = attrs.field(factory=list)
    keys: list[dict[str, Any]] = attrs.field(factory=list)


def _found(api: AnythingApi, path: str) -> Any:
    if path.endswith(("/7", "/me")):
        return ITEM
    if path.endswith(("/explanation", "/explain")):
        return EXPLANATION
    if path == "/proxy":
        return [{"path": "b-Q4_0.gguf", "type": "file", "size": 5}]
    if path.endswith(("/limits", "/drain-plan")):
        return {}
    items = [ITEM, *(api.keys if path == "/v1/api-keys" else [])]
    return {"items": items, "pagination": {"page": 1, "perPage": 100, "total": 1, "totalPage": 1}}


@contextmanager
def anything_api() -> Iterator[AnythingApi]:
    api = AnythingApi()

    class Handler(BaseHTTPRequestHandler):
        def log_message(self, *_: Any) -> None:
            pass

        def answer(self, document: Any) -> None:
            body = json.dumps(document).encode()
            self.send_response(200)
            self.send_header("content-length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def do_GET(self) -> None:
            self.answer(_found(api, self.path.partition("?")[0]))

        def changed(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers.get("content-length") or 0)) or b"{}")
            if not body.get("dry_run"):
                api.sent.append(f"{self.command} {self.path}")
            if (self.command, self.path) == ("POST", "/v1/api-keys"):
                api.keys.append({**ITEM, **body, "id": 8})
            told = {"dry_run": True, "to": 1, "fields": {}, "objects": []}
            self.answer({**ITEM, **told})

        do_POST = do_PUT = do_DELETE = changed

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    api.url = f"http://127.0.0.1:{server.server_port}"
    thread = Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
    thread.start()
    try:
        yield api
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


EXPLANATION = {
    "state": "pending",
    "changes": [
        {
            "kind": "label",
            "by_api": True,
            "sentence": "label worker x",
            "changes": [{"of": "worker", "id": 7, "name": "x", "field": "labels", "value": {"a": "b"}}],
        }
    ],
}
