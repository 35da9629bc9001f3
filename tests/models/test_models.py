"""The model generators make files that the real engine loads and serves."""

from __future__ import annotations

import contextlib
import json
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from gguf import GGUFReader

from tests.child import child, said
from tests.models import SHAPES, make_embedder, make_hollow, make_tiny_llm, split_gguf
from tests.models.vocabulary import vocabulary
from tests.needs import requires_module

SERVE = """
import signal, sys, xllamacpp
params = xllamacpp.CommonParams()
params.model.path, kind = sys.argv[1:]
params.hostnames = ["127.0.0.1"]
params.port = 0
params.n_ctx = 512
params.n_parallel = 1
params.embedding = kind == "embed"
server = xllamacpp.Server(params)
print(server.listening_address, flush=True)
signal.pause()
"""


def post(address: str, path: str, body: dict[str, Any]) -> dict[str, Any]:
    asked = urllib.request.Request(
        address + path, json.dumps(body).encode(), {"Content-Type": "application/json"}
    )
    with urllib.request.urlopen(asked, timeout=30) as answer:
        found: dict[str, Any] = json.load(answer)
        return found


@pytest.fixture
def serve(tmp_path: Path) -> Iterator[Any]:
    requires_module("xllamacpp")
    with contextlib.ExitStack() as stack:

        def start(model: Path, kind: str = "chat") -> str:
            running = child(["-c", SERVE, str(model), kind], stderr=tmp_path / "engine.log")
            return said(stack.enter_context(running))

        yield start


def chat(address: str, content: str) -> str:
    answer = post(address, "/v1/chat/completions", {"messages": [{"role": "user", "content": content}]})
    return str(answer["choices"][0]["message"]["content"])


@pytest.mark.parametrize(
    "reply", ["I am replica one.", "the cat and the cat and the cat", "Grüße aus Köln, 3.5 mal!"]
)
def test_the_tiny_model_says_its_reply_whatever_is_asked(serve: Any, tmp_path: Path, reply: str) -> None:
    address = serve(make_tiny_llm(tmp_path / "tiny.gguf", reply))
    assert chat(address, "What is the cat?") == reply
    assert chat(address, reply) == reply


def test_a_split_model_is_served_from_its_first_shard(serve: Any, tmp_path: Path) -> None:
    whole = make_tiny_llm(tmp_path / "tiny.gguf", "I come in pieces.")
    shards = split_gguf(whole, tmp_path / "shards", 3)
    assert [shard.name for shard in shards] == [f"tiny-0000{n}-of-00003.gguf" for n in (1, 2, 3)]
    assert chat(serve(shards[0]), "Hello") == "I come in pieces."


def test_the_embedder_puts_texts_that_share_words_close(serve: Any, tmp_path: Path) -> None:
    address = serve(make_embedder(tmp_path / "embedder.gguf"), "embed")
    texts = ["the cat sat on the dog", "the dog sat on the cat", "server query weather"]
    answer = post(address, "/v1/embeddings", {"input": texts})
    first, same, other = (entry["embedding"] for entry in answer["data"])
    assert len(first) == 64

    def likeness(a: list[float], b: list[float]) -> float:
        return sum(x * y for x, y in zip(a, b, strict=True))

    assert likeness(first, same) > 0.9 > likeness(first, other)


def test_the_same_arguments_give_the_same_bytes(tmp_path: Path) -> None:
    makers = {"tiny": make_tiny_llm, "embedder": make_embedder}
    for name, make in makers.items():
        one, two = (make(tmp_path / f"{name}-{n}.gguf").read_bytes() for n in (1, 2))
        assert one == two


@pytest.mark.parametrize("reply", ["", "two\nlines", " ".join(f"word{n}" for n in range(400))])
def test_a_reply_that_cannot_be_said_is_refused(reply: str) -> None:
    with pytest.raises(ValueError, match=r"line|less"):
        vocabulary(reply, 512)


# what such files weigh on the public hubs, in GB
KNOWN_SIZES = {"llama-3.3-70b": 42.5, "qwen2.5-7b": 4.68, "llama-3.1-8b": 4.92, "gemma-3-4b": 2.49}


@pytest.mark.parametrize("shape", ["llama-3.1-8b", "deepseek-v2-lite", "gemma-3-4b", "qwen3-30b-a3b"])
def test_a_hollow_model_is_big_in_name_only(tmp_path: Path, shape: str) -> None:
    path = tmp_path / "hollow.gguf"
    size = make_hollow(path, shape)
    assert path.stat().st_size == size
    assert path.stat().st_blocks * 512 < 16 * 2**20
    if shape in KNOWN_SIZES:
        assert size / 1e9 == pytest.approx(KNOWN_SIZES[shape], rel=0.02)


def test_a_hollow_header_reads_back_as_the_shape_it_was_made_from(tmp_path: Path) -> None:
    make_hollow(tmp_path / "hollow.gguf", "qwen3-0.6b", "q8_0")
    reader = GGUFReader(tmp_path / "hollow.gguf")
    shape = SHAPES["qwen3-0.6b"]
    assert reader.fields["qwen3.block_count"].contents() == shape.layers
    assert reader.fields["qwen3.attention.head_count_kv"].contents() == shape.kv_heads
    assert len(reader.tensors) == 2 + shape.layers * 11
