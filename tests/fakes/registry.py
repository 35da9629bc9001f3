"""An Ollama library on loopback: manifests, and blobs that lie behind a redirect and come in ranges."""

from __future__ import annotations

import contextlib
import hashlib
import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

from tests.fakes.site import FileHandler, SiteServer, serving

MODEL, PROJECTOR, LICENCE = (
    f"application/vnd.ollama.image.{kind}" for kind in ("model", "projector", "license")
)


@dataclass
class Registry:
    """``manifests`` by ``owner/name:tag``, ``blobs`` by hash. ``log`` holds (path, range)."""

    url: str = ""
    manifests: dict[str, bytes] = field(default_factory=dict)
    blobs: dict[str, bytes] = field(default_factory=dict)
    status: int = 200
    log: list[tuple[str, str | None]] = field(default_factory=list)

    def add(self, name: str, layers: Mapping[str, bytes]) -> None:
        """Publish a model: contents by media type."""
        listed = []
        for kind, content in layers.items():
            digest = hashlib.sha256(content).hexdigest()
            self.blobs[digest] = content
            listed.append({"mediaType": kind, "digest": f"sha256:{digest}", "size": len(content)})
        self.manifests[name] = json.dumps({"schemaVersion": 2, "layers": listed}).encode()


class _Server(SiteServer):
    registry: Registry


class _Handler(FileHandler):
    server: _Server

    def do_GET(self) -> None:
        registry = self.server.registry
        registry.log.append((self.path, self.headers.get("range")))
        if registry.status != 200:
            self.answer(registry.status, b"{}")
        elif found := re.fullmatch(r"/v2/([^/]+/[^/]+)/manifests/([^/]+)", self.path):
            manifest = registry.manifests.get(f"{found[1]}:{found[2]}")
            self.answer(404 if manifest is None else 200, manifest or b"{}")
        elif found := re.fullmatch(r"/v2/[^/]+/[^/]+/blobs/sha256:(\w+)", self.path):
            self.answer(307, b"", location=f"{registry.url}/storage/{found[1]}?signed=yes")
        elif found := re.fullmatch(r"/storage/(\w+)\?signed=yes", self.path):
            self.give(registry.blobs[found[1]])
        else:
            self.answer(404, b"{}")


@contextlib.contextmanager
def running_registry() -> Iterator[Registry]:
    server = _Server(("127.0.0.1", 0), _Handler)
    server.registry = Registry(f"http://127.0.0.1:{server.server_address[1]}")
    with serving(server):
        yield server.registry
