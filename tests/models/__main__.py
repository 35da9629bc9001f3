"""Make a test model from the command line: ``python -m tests.models tiny --reply "Hello" out.gguf``."""

from __future__ import annotations

import argparse
from pathlib import Path

from tests.models import SHAPES, make_embedder, make_hollow, make_tiny_llm, split_gguf
from tests.models.hollow import MIXES
from tests.models.tiny_llm import REPLY


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.models", description=__doc__)
    kinds = parser.add_subparsers(dest="kind", required=True)

    tiny = kinds.add_parser("tiny", help="a chat model of 3 MB that always gives one reply")
    tiny.add_argument("--reply", default=REPLY)
    tiny.add_argument("--name", default="tiny")
    tiny.add_argument("--layers", type=int, default=2)
    tiny.add_argument("out", type=Path)

    embedder = kinds.add_parser("embedder", help="an embedding model (or a reranker)")
    embedder.add_argument("--rerank", action="store_true")
    embedder.add_argument("out", type=Path)

    hollow = kinds.add_parser("hollow", help="the header of a big model over a sparse hole")
    hollow.add_argument("shape", choices=sorted(SHAPES))
    hollow.add_argument("--quantisation", choices=sorted(MIXES), default="q4_k_m")
    hollow.add_argument("out", type=Path)

    split = kinds.add_parser("split", help="cut a GGUF into shards")
    split.add_argument("source", type=Path)
    split.add_argument("folder", type=Path)
    split.add_argument("shards", type=int)

    asked = parser.parse_args()
    if asked.kind == "split":
        for shard in split_gguf(asked.source, asked.folder, asked.shards):
            print(shard)
        return
    asked.out.parent.mkdir(parents=True, exist_ok=True)
    if asked.kind == "tiny":
        make_tiny_llm(asked.out, asked.reply, name=asked.name, layers=asked.layers)
    elif asked.kind == "embedder":
        make_embedder(asked.out, rerank=asked.rerank)
    else:
        make_hollow(asked.out, asked.shape, asked.quantisation)
    print(f"{asked.out}: {asked.out.stat().st_size} bytes")


if __name__ == "__main__":
    main()
