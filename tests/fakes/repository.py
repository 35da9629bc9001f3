"""What the fake hub keeps: repositories with commits, and files with the hashes a real hub would tell."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path, PurePosixPath
from typing import Any

LARGE_ENDINGS = {".gguf", ".safetensors", ".bin", ".pt", ".onnx", ".zip"}
HASHED_UP_TO = 256 * 2**20
BLOCK = 2**20


@dataclass(frozen=True)
class StoredFile:
    """A file of a repository, in memory or on disk."""

    content: bytes | Path

    @cached_property
    def size(self) -> int:
        return len(self.content) if isinstance(self.content, bytes) else self.content.stat().st_size

    @cached_property
    def sha256(self) -> str:
        """The true hash; of files above 256 MiB (hollow models) an invented one, as hashing 40 GB takes a while."""
        if self.size > HASHED_UP_TO:
            return hashlib.sha256(f"hollow of {self.size}".encode()).hexdigest()
        return self._digest(hashlib.sha256())

    @cached_property
    def blob(self) -> str:
        """Git's name for the content."""
        if self.size > HASHED_UP_TO:
            return self.sha256[:40]
        return self._digest(hashlib.sha1(b"blob %d\0" % self.size))

    def read(self, start: int, length: int) -> bytes:
        if isinstance(self.content, bytes):
            return self.content[start : start + length]
        with self.content.open("rb") as source:
            source.seek(start)
            return source.read(length)

    def blocks(self, start: int, end: int, size: int = 64 * 1024) -> Iterator[bytes]:
        """The bytes from ``start`` up to but without ``end``, in pieces."""
        for at in range(start, end, size):
            yield self.read(at, min(size, end - at))

    def _digest(self, digest: Any) -> str:
        for block in self.blocks(0, self.size, BLOCK):
            digest.update(block)
        return str(digest.hexdigest())


@dataclass
class Repository:
    """One model repository; ``main`` is its newest commit, older ones stay reachable by their hash."""

    name: str
    gated: bool = False
    private: bool = False
    commits: dict[str, dict[str, StoredFile]] = field(default_factory=dict)
    main: str = ""
    branches: dict[str, str] = field(default_factory=dict)

    def commit(self, files: Mapping[str, bytes | Path], branch: str = "main") -> str:
        """Replace the files of ``branch``; return the commit's hash, which follows from the content."""
        stored = {path: StoredFile(content) for path, content in sorted(files.items())}
        told = "\n".join(f"{path} {file.blob}" for path, file in stored.items())
        commit = hashlib.sha1(f"{self.name}\n{told}".encode()).hexdigest()
        self.commits[commit] = stored
        self.branches[branch] = commit
        self.main = self.branches.get("main", commit)
        return commit

    def find(self, revision: str) -> str | None:
        """The full hash that a branch, a tag or a hash stands for."""
        name = revision.removeprefix("refs/heads/")
        return self.branches.get(name) or (revision if revision in self.commits else None)


def is_large(path: str, file: StoredFile) -> bool:
    """True for what the hub keeps in large-file storage, behind a redirect to the CDN."""
    return PurePosixPath(path).suffix in LARGE_ENDINGS or file.size > 10 * 2**20


def described(path: str, file: StoredFile) -> dict[str, Any]:
    """One entry of a tree or of paths-info."""
    entry: dict[str, Any] = {"type": "file", "oid": file.blob, "size": file.size, "path": path}
    if is_large(path, file):
        entry["lfs"] = {"oid": file.sha256, "size": file.size, "pointerSize": 134}
    return entry


def sibling(path: str, file: StoredFile, *, blobs: bool) -> dict[str, Any]:
    """One entry of a model's ``siblings``."""
    if not blobs:
        return {"rfilename": path}
    entry: dict[str, Any] = {"rfilename": path, "size": file.size, "blobId": file.blob}
    if is_large(path, file):
        entry["lfs"] = {"sha256": file.sha256, "size": file.size, "pointerSize": 134}
    return entry


def listing(files: Mapping[str, StoredFile], inside: str, *, recursive: bool) -> list[dict[str, Any]]:
    """The entries of a folder, folders first as they come, as the tree route tells them."""
    found: dict[str, dict[str, Any]] = {}
    prefix = inside.strip("/") + "/" if inside.strip("/") else ""
    for path, file in files.items():
        if not path.startswith(prefix):
            continue
        parts = path[len(prefix) :].split("/")
        for depth in range(1, len(parts)):
            folder = prefix + "/".join(parts[:depth])
            if recursive or depth == 1:
                name = hashlib.sha1(folder.encode()).hexdigest()
                found.setdefault(folder, {"type": "directory", "oid": name, "size": 0, "path": folder})
        if recursive or len(parts) == 1:
            found[path] = described(path, file)
    return list(found.values())
