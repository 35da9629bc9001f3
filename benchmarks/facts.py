"""What it costs to know a model of 30 shards before it is fetched: requests, bytes, memory and time.

    python benchmarks/facts.py

A hub on loopback (``tests/fakes/hub.py``) serves the folder of a model of 70 billion weights as sparse files with the
headers of a real one. A second process reads its facts as the daemon does, and says how its memory grew at the most.
Exits with 1 where that is not within what is promised: one request a shard and three more, 50 MB. Redirects, which the
hub answers for each shard, are told apart.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import random
import resource
import sys
import tempfile
import time
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import trio

from gpustack.artifacts.headers.facts_reader import FactsReader
from gpustack.domain.artifact import ModelSource, SourceKind
from gpustack.domain.facts import ModelFacts
from tests.fakes.hub import running_hub
from tests.models.hollow_folder import make_hollow_folder

SHAPE, REPOSITORY = "llama-3.3-70b", "me/llama-3.3-70b"
MOST_FURTHER_REQUESTS = 3
MOST_MEMORY = 50 << 20


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--shards", type=int, default=30)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--json", action="store_true")
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place) / "model"
        weights = make_hollow_folder(folder, SHAPE, shards=asked.shards)
        found = measured(folder, weights, asked.shards, asked.rounds)
    print(json.dumps(found, indent=2) if asked.json else as_table(found))
    return 0 if found["within"] else 1


def measured(folder: Path, weights: int, shards: int, rounds: int) -> dict[str, Any]:
    """The figures of one run; times are medians of the rounds, each of which begins with nothing known."""
    with running_hub() as hub:
        hub.add(REPOSITORY, {path.name: path for path in sorted(folder.iterdir())})
        ours, theirs = multiprocessing.get_context("spawn").Pipe()
        reader = multiprocessing.get_context("spawn").Process(target=read, args=(theirs, hub.url, rounds))
        reader.start()
        told = ours.recv()
        reader.join()
        answered = [request for request in hub.log if request.status in (200, 206)]
        redirects = sum(request.status in (302, 307) for request in hub.log)
    header_bytes = sum(path.stat().st_blocks * 512 for path in folder.iterdir())
    requests = len(answered) // rounds
    return {
        "shards": shards,
        "weights_known": told["weights"] == weights,
        "requests": requests,
        "requests_beside_shards": requests - shards,
        "redirects": redirects // rounds,
        "bytes_fetched": sum(request.sent for request in answered) // rounds,
        "bytes_on_disk": header_bytes,
        "memory_growth": told["growth"],
        "seconds": sorted(told["seconds"])[rounds // 2],
        "within": told["weights"] == weights
        and requests - shards <= MOST_FURTHER_REQUESTS
        and told["growth"] < MOST_MEMORY,
    }


def read(pipe: Connection, url: str, rounds: int) -> None:
    """Read the facts again and again with a new reader; for a process of its own, whose memory is looked at."""
    source = ModelSource(kind=SourceKind.HUGGING_FACE, huggingface_repo_id=REPOSITORY)

    async def once() -> ModelFacts:
        return await FactsReader(clock=time.monotonic, rng=random.Random(1), endpoint=url).read(source)

    import huggingface_hub  # noqa: F401  the daemon has it already; its own memory is not the reader's

    before, seconds, facts = peak(), [], None
    for _ in range(rounds):
        began = time.perf_counter()
        facts = trio.run(once)
        seconds.append(time.perf_counter() - began)
    assert facts is not None
    pipe.send({"growth": peak() - before, "seconds": seconds, "weights": facts.weights})


def peak() -> int:
    """The most memory that this process had at any time, in bytes."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def as_table(found: dict[str, Any]) -> str:
    rows = (
        ("shards", f"{found['shards']}"),
        ("requests", f"{found['requests']} ({found['requests_beside_shards']} beside one a shard)"),
        ("redirects followed", f"{found['redirects']}"),
        ("bytes fetched", f"{found['bytes_fetched'] / 1e6:.2f} MB"),
        ("memory, at the most", f"{found['memory_growth'] / 1e6:.1f} MB more than before"),
        ("time, median", f"{found['seconds']:.2f} s"),
        ("promised", "kept" if found["within"] else "NOT kept"),
    )
    return "\n".join(f"{name:>20}  {value}" for name, value in rows)


if __name__ == "__main__":
    sys.exit(main())
