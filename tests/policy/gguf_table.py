"""Models by the keys of their headers, and what llama.cpp allocates for them: MiB, as its own log says.

``gguf_table.json`` holds for each model its architecture, the bytes of its weights, which kinds of feed-forward its
tensors are, the keys of its header, and for each setting the KV cache, recurrent state, compute buffers, output buffer,
and the sum with the weights. The files were hollow: every tensor that the engine's loader asks for, and no words
(``benchmarks/gguf_memory.py`` makes such files and asks the engine).
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import attrs

from gpustack.artifacts.headers.gguf import GgufHeader, GgufTensor
from gpustack.artifacts.headers.gguf_facts import gguf_facts
from gpustack.domain.facts import ModelFacts, TensorBytes
from gpustack.domain.unit import MIB
from gpustack.policy.estimate.gguf import GgufSettings

SETTINGS = {
    "default": GgufSettings(ctx=8192, parallel=4),
    "4k": GgufSettings(ctx=4096),
    "32k-p4": GgufSettings(ctx=32768, parallel=4),
    "32k-p4-apart": GgufSettings(ctx=32768, parallel=4, unified=False),
    "128k": GgufSettings(ctx=131072),
    "32k-q8": GgufSettings(ctx=32768, key_type="q8_0", value_type="q8_0"),
    "32k-kq4": GgufSettings(ctx=32768, key_type="q4_0", value_type="q4_0"),
    "16k-faoff": GgufSettings(ctx=16384, flash_attention=False),
    "16k-faon": GgufSettings(ctx=16384),
    "32k-ub2048": GgufSettings(ctx=32768, ubatch=2048),
    "32k-swafull": GgufSettings(ctx=32768, full_window=True),
    "emb-8k": GgufSettings(ctx=8192, ubatch=2048, logits=False),
    "emb-8k-p4": GgufSettings(ctx=8192, parallel=4, logits=False),
    "emb-32k": GgufSettings(ctx=32768, ubatch=2048, logits=False),
}


@attrs.frozen
class Row:
    """What the engine allocated in one setting, in MiB."""

    setting: str
    cache: float
    state: float
    compute: float
    output: float
    total: float


@attrs.frozen
class Measured:
    """A model as its header tells of it, and what the engine allocated."""

    name: str
    facts: ModelFacts
    rows: tuple[Row, ...]


@cache
def measured() -> tuple[Measured, ...]:
    """All models of the table."""
    return tuple(_read())


def _read() -> Iterator[Measured]:
    table = json.loads((Path(__file__).parent / "gguf_table.json").read_text())
    for name, said in table.items():
        rows = tuple(Row(setting, *figures) for setting, figures in said["rows"].items())
        yield Measured(name, _facts(said), rows)


def _facts(said: dict[str, Any]) -> ModelFacts:
    """As the header reader tells them, from a header with a tensor of each kind; weights as they were measured."""
    architecture = said["architecture"]
    metadata: dict[str, Any] = {"general.architecture": architecture}
    for key, value in said["keys"].items():
        metadata[f"{architecture}.{key}"] = tuple(value) if isinstance(value, list) else value
    rows = said.get("feed_forward_rows") or _rows(said["keys"])
    shapes = {
        "gated": ("ffn_gate", (1, rows)),
        "dense": ("ffn_down", (rows, 1)),
        "mixed": ("ffn_down_exps", (1, 1, 1)),
    }
    kinds = [shapes[kind] for kind in said["feed_forward"]]
    tensors: list[tuple[str, tuple[int, ...]]] = [(f"blk.0.{name}.weight", sides) for name, sides in kinds]
    tensors += [("blk.0.ffn_up.weight", (1, rows)), ("token_embd.weight", (1, 1))]
    header = GgufHeader(
        version=3,
        metadata=metadata,
        tensors=tuple(GgufTensor(name, shape, 0, 0, 4) for name, shape in tensors),
        size=0,
    )
    facts = gguf_facts([header], file_size=round(said["weights"] * MIB))
    tensor_bytes = TensorBytes(other=round(said["weights"] * MIB), tied=said["tied"])
    return attrs.evolve(facts, tensors=tensor_bytes)


def _rows(keys: dict[str, Any]) -> int:
    """The widest feed-forward that a header tells, at least 1."""
    rows = keys.get("feed_forward_length", 1)
    return max(rows) if isinstance(rows, list) else int(rows)
