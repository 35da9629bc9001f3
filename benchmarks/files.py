"""How fast one large file is fetched, and what a hub is asked for when two workers want it.

    python benchmarks/files.py [--size 1.0] [--rounds 3] [--json]      size in GiB; 4 is what is promised for

One: the fetch of a file into the cache, hashed and verified, against ``curl | tee FILE | sha256sum`` from the same hub
on loopback, one after the other in each round, and what the process grew by. Two: two daemons are told to fetch it at
the same time, with worker-to-worker copy; the bytes that left the hub against the size of the file.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import random
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent))

from benchmarks.file_hub import NAME  # noqa: E402
from tests.daemon import Daemon, daemon  # noqa: E402

TOKEN = "a-token-for-the-benchmark-of-files"
FETCH = """
import random, resource, sys, time, trio
from pathlib import Path
from gpustack.artifacts.cache import Cache, CacheSettings
from gpustack.artifacts.source import ModelScopeAccess
from gpustack.domain.artifact import ModelSource, SourceKind
url, root = sys.argv[1:]
source = ModelSource(kind=SourceKind.MODEL_SCOPE, model_scope_model_id="me/m", model_scope_file_path="*.gguf")
cache = Cache(Path(root), random.Random(1), CacheSettings(model_scope=ModelScopeAccess(endpoint=url)))
import httpx
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
began = time.perf_counter()
trio.run(cache.ensure, source)
print(time.perf_counter() - began, (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024)
"""


def main() -> None:
    parser = argparse.ArgumentParser(prog="benchmarks/files.py", description=__doc__)
    parser.add_argument("--size", type=float, default=1.0)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    size = int(options.size * (1 << 30))
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        digest = make(folder / NAME, size)
        with hub(folder / NAME, digest) as running:
            figures = {**fetched(running, folder, size, options.rounds), **shared(running, folder, size)}
    if options.json:
        print(json.dumps(figures))
        return
    for what, value in figures.items():
        print(f"{what:58} {value:.3f}")


def make(path: Path, size: int) -> str:
    """A file that begins like a GGUF model, and its SHA-256."""
    digest, block = hashlib.sha256(), random.Random(1).randbytes(1 << 20)
    with path.open("wb") as target:
        for number in range(size >> 20):
            piece = number.to_bytes(8, "little") + block[8:]
            target.write(piece)
            digest.update(piece)
    return digest.hexdigest()


@contextmanager
def hub(path: Path, digest: str) -> Iterator[subprocess.Popen[str]]:
    command = [sys.executable, str(HERE / "file_hub.py"), str(path), digest]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        process.url = process.stdout.readline().strip()  # type: ignore[attr-defined]
        yield process
        process.kill()


def sent(running: Any) -> int:
    """Bytes of files that have left the hub."""
    running.stdin.write("\n")
    running.stdin.flush()
    return int(running.stdout.readline())


def fetched(running: Any, folder: Path, size: int, rounds: int) -> dict[str, float]:
    """Medians of pairs, each run after the other."""
    plain, ours, memory = [], [], []
    for _ in range(rounds):
        target, root = folder / "plain", folder / "cache"
        url = f"{running.url}/api/v1/models/me/m/repo?Revision=master&FilePath={NAME}"
        began = time.perf_counter()
        subprocess.run(
            ["sh", "-c", 'curl -sf "$0" | tee "$1" | sha256sum', url, str(target)],
            check=True,
            stdout=subprocess.DEVNULL,
        )
        plain.append(time.perf_counter() - began)
        target.unlink()
        told = subprocess.run(
            [sys.executable, "-c", FETCH, running.url, str(root)],
            check=True,
            capture_output=True,
            text=True,
            cwd=HERE.parent,
        )
        seconds, grown = map(float, told.stdout.split())
        ours.append(seconds)
        memory.append(grown)
        shutil.rmtree(root)
    ratio = statistics.median([one / other for one, other in zip(plain, ours, strict=True)])
    return {
        "curl | tee | sha256sum, MiB/s": size / (1 << 20) / statistics.median(plain),
        "fetch with hashing, MiB/s": size / (1 << 20) / statistics.median(ours),
        "rate against curl | tee | sha256sum": ratio,
        "memory of the fetch, MiB": max(memory),
    }


def shared(running: Any, folder: Path, size: int) -> dict[str, float]:
    env = {"MODELSCOPE_ENDPOINT": running.url, "GPUSTACK_TOKEN": TOKEN}
    wanted = {"source": "model_scope", "model_scope_model_id": "me/m", "model_scope_file_path": "*.gguf"}
    before = sent(running)
    with (
        daemon(folder / "one", "--worker-name=one", env=env) as one,
        daemon(
            folder / "two", f"--server-url={one.url}", "--worker-name=two", "--worker-ip=127.0.0.1", env=env
        ),
    ):
        workers = one.until(lambda: both(one), "two workers")
        began = time.perf_counter()
        for worker in workers:
            status, answer = one.call("POST", "/v1/model-files", {**wanted, "worker_id": worker["id"]})
            assert status == 200, answer
        while (files := ready(one)) is None:
            time.sleep(0.05)
        took = time.perf_counter() - began
    figures = {
        "bytes from the hub for two workers, in files": (sent(running) - before) / size,
        "two workers at once, s": took,
    }
    assert any(file["fetched_from"] not in ("", "hub") for file in files), files
    return figures


def both(one: Daemon) -> list[dict[str, Any]] | None:
    found: list[dict[str, Any]] = one.call("GET", "/v1/workers")[1]["items"]
    return found if len([worker for worker in found if worker["state"] == "ready"]) == 2 else None


def ready(one: Daemon) -> list[dict[str, Any]] | None:
    files: list[dict[str, Any]] = one.call("GET", "/v1/model-files")[1]["items"]
    assert all(file["state"] != "error" for file in files), files
    return files if all(file["state"] == "ready" for file in files) else None


if __name__ == "__main__":
    os.environ.setdefault("PYTHONDONTWRITEBYTECODE", "1")
    main()
