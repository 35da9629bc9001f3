"""ModelScope on loopback: listings, files by name and revision, and large ones behind a redirect to a store."""

from __future__ import annotations

import contextlib
import hashlib
import json
import re
import urllib.parse
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from tests.fakes.site import FileHandler, SiteServer, serving

_LARGE = (".safetensors", ".gguf", ".bin")


@dataclass
class ModelScopeSite:
    """``files`` by repository and revision. ``log`` holds (path, range, whether credentials came with it)."""

    url: str = ""
    files: dict[tuple[str, str], dict[str, bytes]] = field(default_factory=dict)
    private: dict[str, str] = field(default_factory=dict)  # repository -> the token that opens it
    status: int = 200
    hashes: bool = True
    log: list[tuple[str, str | None, bool]] = field(default_factory=list)

    def add(self, repo: str, files: Mapping[str, bytes], *, revision: str = "master") -> None:
        self.files.setdefault((repo, revision), {}).update(files)


class _Server(SiteServer):
    site: ModelScopeSite


class _Handler(FileHandler):
    server: _Server

    def do_GET(self) -> None:
        site, parts = self.server.site, urllib.parse.urlsplit(self.path)
        query = dict(urllib.parse.parse_qsl(parts.query))
        came = "authorization" in self.headers or "cookie" in self.headers
        site.log.append((parts.path, self.headers.get("range"), came))
        if site.status != 200:
            self.refuse(site.status, "as told")
        elif found := re.fullmatch(r"/api/v1/models/([^/]+/[^/]+)/repo(/files)?", parts.path):
            self.answer_of(found[1], query, listing=found[2] is not None)
        elif found := re.fullmatch(r"/oss/([^/]+/[^/]+)/([^/]+)/(.+)", parts.path):
            assert not came, "the store must not get our credentials"
            self.give(site.files[found[1], found[2]][urllib.parse.unquote(found[3])])
        else:
            self.refuse(404, "nothing here")

    def answer_of(self, repo: str, query: Mapping[str, str], *, listing: bool) -> None:
        site = self.server.site
        token = site.private.get(repo)
        files = site.files.get((repo, query["Revision"]))
        if files is None or (token is not None and self.headers.get("authorization") != f"Bearer {token}"):
            self.refuse(404, "record not found")
        elif listing:
            assert query["Recursive"] == "True"
            entries = [self.entry(name, content) for name, content in files.items()]
            folders = {name.rpartition("/")[0] for name in files} - {""}
            entries += [
                {"Name": one, "Path": one, "Type": "tree", "Size": 0, "Sha256": ""} for one in folders
            ]
            self.say(200, {"Code": 200, "Success": True, "Message": "success", "Data": {"Files": entries}})
        elif query["FilePath"] not in files:
            self.refuse(404, "no such file")
        elif query["FilePath"].endswith(_LARGE):
            name = urllib.parse.quote(query["FilePath"])
            store = site.url.replace("127.0.0.1", "localhost")  # another host, as far as credentials go
            self.answer(302, b"", location=f"{store}/oss/{repo}/{query['Revision']}/{name}?Signature=x")
        else:
            self.give(files[query["FilePath"]])

    def entry(self, path: str, content: bytes) -> dict[str, Any]:
        made = {"Name": path.rpartition("/")[2], "Path": path, "Type": "blob", "Size": len(content)}
        if self.server.site.hashes:
            made["Sha256"] = hashlib.sha256(content).hexdigest()
        return {**made, "IsLFS": path.endswith(_LARGE)}

    def refuse(self, status: int, message: str) -> None:
        self.say(status, {"Code": 10010205001, "Success": False, "Message": message, "Data": None})

    def say(self, status: int, document: Any) -> None:
        self.answer(status, json.dumps(document).encode(), content_type="application/json")


@contextlib.contextmanager
def running_modelscope() -> Iterator[ModelScopeSite]:
    server = _Server(("127.0.0.1", 0), _Handler)
    server.site = ModelScopeSite(f"http://127.0.0.1:{server.server_address[1]}")
    with serving(server):
        yield server.site
