"""GGUF headers: read truly, read fast, and whatever else the bytes are is refused by name."""

from __future__ import annotations

import contextlib
import struct
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gpustack.artifacts.headers import gguf
from gpustack.artifacts.headers.gguf import (
    BLOCKS,
    KEPT_ITEMS,
    MOST_TENSORS,
    MOST_TEXTS,
    GgufHeader,
    HeaderError,
    SkippedArray,
    TruncatedHeader,
    parse,
)
from gpustack.artifacts.headers.gguf_facts import gguf_facts
from gpustack.domain.facts import FileFormat, GgufShape, ModelFacts
from gpustack.domain.model import Category
from tests.models import SHAPES, make_embedder, make_hollow, split_gguf
from tests.policy.shapes import facts_of

U32, U64 = struct.Struct("<I"), struct.Struct("<Q")


def text(value: str | bytes) -> bytes:
    raw = value.encode() if isinstance(value, str) else value
    return U64.pack(len(raw)) + raw


def key(name: str, kind: int, raw: bytes) -> bytes:
    return text(name) + U32.pack(kind) + raw


def array(kind: int, count: int, raw: bytes = b"") -> bytes:
    return U32.pack(kind) + U64.pack(count) + raw


def tensor(name: str, shape: tuple[int, ...], kind: int, offset: int) -> bytes:
    sides = b"".join(U64.pack(side) for side in shape)
    return text(name) + U32.pack(len(shape)) + sides + U32.pack(kind) + U64.pack(offset)


def header(*keys: bytes, tensors: tuple[bytes, ...] = (), version: int = 3) -> bytes:
    start = b"GGUF" + U32.pack(version) + U64.pack(len(tensors)) + U64.pack(len(keys))
    return start + b"".join(keys) + b"".join(tensors)


def read(path: Path) -> GgufHeader:
    with path.open("rb") as file:
        return parse(file.read(32 << 20))


@pytest.mark.parametrize("shape", sorted(SHAPES))
@pytest.mark.parametrize("quantisation", ["q4_k_m", "f16"])
def test_the_facts_of_well_known_models_are_read(tmp_path: Path, shape: str, quantisation: str) -> None:
    size = make_hollow(tmp_path / "m.gguf", shape, quantisation)
    found = gguf_facts([read(tmp_path / "m.gguf")], file_size=size)
    wanted = facts_of(shape, quantisation)
    for name in (
        "format", "architecture", "category", "weights", "total_layers", "context_length", "embedding_length",
        "feed_forward_length", "heads", "kv_heads", "key_length", "value_length", "key_length_mla", "kv_lora_rank",
        "vocabulary", "sliding_window", "expert_count", "tensors",
    ):  # fmt: skip
        assert getattr(found, name) == getattr(wanted, name), name
    assert found.file_size == size
    assert found.quantisation == quantisation.upper()
    assert found.is_complete


def test_an_embedding_model_and_a_reranker_are_told_apart(tmp_path: Path) -> None:
    embedder, reranker = (
        gguf_facts([read(make_embedder(tmp_path / f"{rerank}.gguf", rerank=rerank))], file_size=1)
        for rerank in (False, True)
    )
    assert (embedder.category, embedder.pooling) == (Category.EMBEDDING, "mean")
    assert (reranker.category, reranker.pooling) == (Category.RERANKER, "rank")
    assert embedder.name == "tiny-embedder"


def test_the_shards_of_a_model_add_up_to_it(tiny_model: Path, tmp_path: Path) -> None:
    whole = gguf_facts([read(tiny_model)], file_size=1)
    parts = gguf_facts([read(part) for part in split_gguf(tiny_model, tmp_path, 3)], file_size=1)
    assert parts.split_count == 3
    assert (parts.tensors, parts.parameters, parts.heads) == (whole.tensors, whole.parameters, whole.heads)


def test_the_length_of_the_header_is_known_and_all_of_it_is_needed(tiny_model: Path) -> None:
    data = tiny_model.read_bytes()
    whole = parse(data)
    assert parse(data[: whole.size]) == whole
    for cut in {0, 3, 4, 23, 24, whole.size // 2, whole.size - 1}:
        with pytest.raises(TruncatedHeader) as caught:
            parse(data[:cut])
        assert cut < caught.value.needed <= whole.size


@pytest.mark.parametrize(
    ("data", "said"), [(b"", "it is empty"), (b"GGUF\x03", "the file ends within its header")]
)
def test_a_file_that_ends_too_soon_is_said_to_be_downloaded_again(data: bytes, said: str) -> None:
    with pytest.raises(TruncatedHeader, match=f"^{said}.*: download it again$"):
        parse(data)


def test_long_arrays_are_counted_and_short_ones_kept() -> None:
    many = struct.pack(f"<{KEPT_ITEMS + 1}f", *range(KEPT_ITEMS + 1))
    seen = parse(
        header(
            key("texts", 9, array(8, 2, text("a") + text("b"))),
            key("long", 9, array(6, KEPT_ITEMS + 1, many)),
            key("short", 9, array(5, 2, struct.pack("<2i", -1, 7))),
            key("deep", 9, array(9, 1, array(7, 2, b"\x01\x00"))),
            key("odd", 8, text(b"\xff")),
        )
    ).metadata
    assert seen == {
        "texts": SkippedArray(2),
        "long": SkippedArray(KEPT_ITEMS + 1),
        "short": (-1, 7),
        "deep": ((True, False),),
        "odd": "\ufffd",
    }


def test_the_last_tensor_of_a_type_yet_to_come_reaches_to_the_end_of_the_file() -> None:
    newer = 1000
    whole = header(
        key("general.architecture", 8, text("llama")),
        key("llama.block_count", 4, U32.pack(1)),
        tensors=(tensor("token_embd.weight", (32,), 0, 0), tensor("blk.0.x", (64,), newer, 128)),
    )
    start = -(-len(whole) // 32) * 32
    tensors = gguf_facts([parse(whole)], file_size=start + 128 + 77).tensors
    assert tensors is not None
    assert (tensors.token_embedding, tensors.layers) == (128, (77,))
    assert gguf_facts([parse(whole)], file_size=start).tensors is None


@pytest.mark.parametrize(("kind", "size"), [(41, 4 * 18), (42, 8 * 18)])
def test_tensors_of_one_and_two_bits_have_their_size(kind: int, size: int) -> None:
    """As llama.cpp itself counts: 1.125 and 2.25 bits a weight."""
    (found,) = parse(header(tensors=(tensor("a", (512,), kind, 0),))).tensors
    assert found.size == size


def test_a_tensor_of_a_type_yet_to_come_reaches_to_the_next() -> None:
    new = max(BLOCKS) + 100
    seen = parse(
        header(
            tensors=(tensor("a", (32,), new, 0), tensor("b", (32, 2), 8, 96), tensor("c", (4,), new, 192)),
        )
    ).tensors
    assert [one.size for one in seen] == [96, 68, None]


@pytest.mark.attack("parser")
@pytest.mark.parametrize(
    ("data", "word"),
    [
        (b"PK\x03\x04", "ZIP archive or a PyTorch file"),
        (b"GGML" + bytes(40), "does not start"),
        (b"<!DOCTYPE html><html>", "HTML page that was saved under this name"),
        (b"\n <html>", "HTML page"),
        (
            b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n",
            "Git LFS pointer in place of the file",
        ),
        (b"<?xml version='1.0'?><Error>", "XML document"),
        (b"\x1f\x8b\x08", "compressed"),
        (bytes(300), "begins with zeros"),
        (struct.pack("<Q", 2) + b"{}", "safetensors file"),
        (b"tjgg" + bytes(40), "before GGUF"),
        (header(version=1), "version is 1"),
        (header(version=4), "version is 4"),
        (b"GGUF" + struct.pack(">I", 3) + bytes(16), "big-endian"),
        (b"GGUF" + U32.pack(3) + U64.pack(1 << 60) + U64.pack(0), "tensors"),
        (b"GGUF" + U32.pack(3) + U64.pack(0) + U64.pack(1 << 60), "keys"),
        (header(key("a", 99, b"")), "type 99"),
        (header(key("a", 9, array(99, 1))), "type 99"),
        (header(key("a", 8, U64.pack(1 << 50))), "text of"),
        (header(text("x" * 70_000)), "text of 70000"),
        (header(key("a", 9, array(8, 1 << 50))), "texts"),
        (header(key("a", 9, array(9, 1 << 40))), "arrays"),
        (header(key("a", 9, array(9, 1) * 40)), "too deeply"),
        (header(key("a", 0, b"\x01"), key("a", 0, b"\x01")), "twice"),
        (header(tensors=(tensor("t", (1,) * 9, 0, 0),)), "9 dimensions"),
        (header(tensors=(tensor("t", (1 << 40, 1 << 40), 0, 0),)), "elements"),
    ],
)
def test_what_is_no_header_is_refused_with_its_reason(data: bytes, word: str) -> None:
    with pytest.raises(HeaderError, match=word) as caught:
        parse(data)
    assert not isinstance(caught.value, TruncatedHeader)


@pytest.mark.attack("parser")
def test_a_header_does_not_claim_to_be_larger_than_may_be(monkeypatch: pytest.MonkeyPatch) -> None:
    """Refused by the count, before anything is read; a reader that goes through the items one by one, as the one of
    the gguf package does, would not come back from a count that is large in earnest."""
    monkeypatch.setattr(gguf, "MOST_HEADER", 1000)
    with pytest.raises(HeaderError, match="larger than 1000 bytes") as caught:
        parse(header(key("a", 9, array(4, 300))))
    assert not isinstance(caught.value, TruncatedHeader)


@pytest.mark.attack("parser")
def test_facts_said_absurdly_are_not_said() -> None:
    odd = header(
        key("general.architecture", 8, text("llama")),
        key("general.name", 4, U32.pack(1)),
        key("general.file_type", 8, text("Q4")),
        key("llama.block_count", 6, struct.pack("<f", 3.0)),
        key("llama.context_length", 10, U64.pack(1 << 60)),
        key("llama.embedding_length", 5, struct.pack("<i", -4)),
        key("llama.attention.head_count", 9, array(8, 1, text("8"))),
        key("llama.attention.head_count_kv", 9, array(5, 2, struct.pack("<2i", 4, -1))),
        key("llama.attention.key_length", 9, array(5, 2, struct.pack("<2i", 64, 128))),
    )
    assert gguf_facts([parse(odd)], file_size=7) == ModelFacts(
        format=FileFormat.GGUF,
        architecture="llama",
        shape=GgufShape(dense=False, mixed=False),
        category=Category.LLM,
        weights=0,
        file_size=7,
        key_length=128,
        tensors=gguf_facts([parse(header())], file_size=7).tensors,
    )


@pytest.mark.attack("parser")
def test_more_layers_than_any_model_has_are_refused() -> None:
    odd = header(
        key("general.architecture", 8, text("llama")), key("llama.block_count", 4, U32.pack(4_000_000_000))
    )
    with pytest.raises(HeaderError, match="4000000000 layers"):
        gguf_facts([parse(odd)], file_size=1)


_numbers = st.integers(0, (1 << 64) - 1) | st.integers(0, 20)
_pieces = st.one_of(
    st.binary(max_size=12),
    _numbers.map(U64.pack),
    st.integers(0, (1 << 32) - 1).map(U32.pack),
    st.integers(0, 14).map(U32.pack),
    st.text(max_size=8).map(text),
    st.builds(key, st.text(max_size=8), st.integers(0, 14), st.binary(max_size=16)),
    st.builds(tensor, st.text(max_size=8), st.tuples(_numbers, _numbers), st.integers(0, 50), _numbers),
)


@pytest.mark.attack("parser")
@settings(max_examples=400, deadline=None)
@given(st.integers(0, 20), st.integers(0, 20), st.lists(_pieces, max_size=12))
def test_any_bytes_are_read_or_refused_by_name(tensors: int, keys: int, pieces: list[bytes]) -> None:
    data = b"GGUF" + U32.pack(3) + U64.pack(tensors) + U64.pack(keys) + b"".join(pieces)
    try:
        found = parse(data)
        gguf_facts([found], file_size=len(data))
    except TruncatedHeader as cut:
        assert cut.needed > len(data)
    except HeaderError:
        pass
    else:
        assert found.size <= len(data)


@pytest.mark.attack("parser")
@settings(max_examples=300, deadline=None)
@given(data=st.data())
def test_a_spoilt_header_is_read_or_refused_by_name(data: st.DataObject) -> None:
    whole = bytearray(_GOOD)
    for _ in range(data.draw(st.integers(1, 6))):
        whole[data.draw(st.integers(0, len(whole) - 1))] = data.draw(st.integers(0, 255))
    with contextlib.suppress(HeaderError):
        gguf_facts([parse(bytes(whole))], file_size=len(whole))


_GOOD = header(
    key("general.architecture", 8, text("llama")),
    key("llama.block_count", 4, U32.pack(2)),
    key("llama.attention.head_count", 9, array(4, 2, U32.pack(8) * 2)),
    key("tokenizer.ggml.tokens", 9, array(8, 3, text("a") + text("b") + text("c"))),
    tensors=(tensor("token_embd.weight", (4, 3), 0, 0), tensor("blk.0.x", (256,), 12, 64)),
)


def nested(outer: int, inner: int) -> bytes:
    return array(9, outer, array(9, inner, array(0, 0) * inner) * outer)


@pytest.mark.attack("parser")
@pytest.mark.parametrize(
    ("hostile", "why"),
    [
        (header(key("a", 9, nested(100, 1000))), "arrays"),
        (header(key("a", 9, array(8, MOST_TEXTS + 1, bytes(1000)))), "texts"),
        (b"GGUF" + U32.pack(3) + U64.pack(MOST_TENSORS + 1) + U64.pack(0) + bytes(1000), "tensors"),
    ],
    ids=["arrays", "texts", "tensors"],
)
def test_a_few_bytes_cannot_make_much_work(hostile: bytes, why: str) -> None:
    with pytest.raises(HeaderError, match=why):
        parse(hostile)


@pytest.mark.attack("parser")
def test_sums_that_no_machine_could_hold_are_refused() -> None:
    keys = (
        key("general.architecture", 8, text("llama")),
        key("llama.block_count", 4, U32.pack(1)),
    )
    huge = tuple(tensor(f"blk.0.{n}", (1 << 60,), 0, 0) for n in range(8))
    with pytest.raises(HeaderError, match="contradicts itself"):
        gguf_facts([parse(header(*keys, tensors=huge))], file_size=1)
