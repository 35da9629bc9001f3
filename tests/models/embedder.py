"""A small seeded BERT GGUF: texts that share words come out close, others do not.

Its layers barely change their input, so the mean-pooled vector is a random projection of the bag of tokens.
"""

from __future__ import annotations

import string
from collections.abc import Iterator
from pathlib import Path

import gguf
import numpy as np

WIDTH = 64
FEED_FORWARD = 128
LAYERS = 2
CONTEXT = 512
CONTROL = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")
WORDS = """
an and are as at be by cat cluster dog document for from gpu he in is it model not of on or panda query rain
sat server sun that the this to was weather where who with you
""".split()  # noqa: SIM905 - forty quoted words read worse
WORD_START = "\u2581"  # how GGUF spells the start of a word; pieces inside a word have no mark


def make_embedder(path: Path, *, name: str = "tiny-embedder", rerank: bool = False, seed: int = 0) -> Path:
    """Write the model to ``path`` and return it: ``/v1/embeddings`` gives vectors of 64 numbers.

    With ``rerank`` it has a classification head and serves ``/v1/rerank``; the scores mean nothing.
    """
    tokens = _tokens()
    writer = gguf.GGUFWriter(path, "bert")
    writer.add_name(name)
    writer.add_type("model")
    writer.add_context_length(CONTEXT)
    writer.add_embedding_length(WIDTH)
    writer.add_feed_forward_length(FEED_FORWARD)
    writer.add_block_count(LAYERS)
    writer.add_head_count(4)
    writer.add_layer_norm_eps(1e-12)
    writer.add_causal_attention(False)
    writer.add_pooling_type(gguf.PoolingType.RANK if rerank else gguf.PoolingType.MEAN)
    writer.add_file_type(gguf.LlamaFileType.MOSTLY_F16)
    _add_tokenizer(writer, tokens)
    if rerank:
        writer.add_classifier_output_labels(["LABEL_0"])
    for tensor, values in _tensors(len(tokens), np.random.default_rng(seed), rerank):
        writer.add_tensor(tensor, values)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def _tokens() -> list[str]:
    letters = string.ascii_lowercase + string.digits + string.punctuation
    starts = [WORD_START + start for start in (*letters, *WORDS)]
    return [*CONTROL, *letters, *starts]


def _add_tokenizer(writer: gguf.GGUFWriter, tokens: list[str]) -> None:
    kinds = gguf.TokenType
    writer.add_tokenizer_model("bert")
    writer.add_tokenizer_pre("jina-v2-en")
    writer.add_token_list(tokens)
    writer.add_token_types([kinds.CONTROL if token in CONTROL else kinds.NORMAL for token in tokens])
    writer.add_token_type_count(2)
    writer.add_bos_token_id(tokens.index("[CLS]"))
    writer.add_eos_token_id(tokens.index("[SEP]"))
    writer.add_sep_token_id(tokens.index("[SEP]"))
    writer.add_unk_token_id(tokens.index("[UNK]"))
    writer.add_pad_token_id(tokens.index("[PAD]"))
    writer.add_mask_token_id(tokens.index("[MASK]"))


def _tensors(tokens: int, rng: np.random.Generator, rerank: bool) -> Iterator[tuple[str, np.ndarray]]:
    def normal(*shape: int, scale: float = 1.0) -> np.ndarray:
        return (rng.standard_normal(shape) * scale).astype(np.float32)

    def norm(tensor: str) -> Iterator[tuple[str, np.ndarray]]:
        yield tensor + ".weight", np.ones(WIDTH, dtype=np.float32)
        yield tensor + ".bias", np.zeros(WIDTH, dtype=np.float32)

    yield "token_embd.weight", normal(tokens, WIDTH).astype(np.float16)
    yield "position_embd.weight", normal(CONTEXT, WIDTH, scale=0.01)
    yield "token_types.weight", np.zeros((2, WIDTH), dtype=np.float32)
    yield from norm("token_embd_norm")
    sides = {"attn_q": (WIDTH, WIDTH), "attn_k": (WIDTH, WIDTH), "attn_v": (WIDTH, WIDTH)}
    sides |= {"attn_output": (WIDTH, WIDTH)}
    sides |= {"ffn_up": (FEED_FORWARD, WIDTH), "ffn_down": (WIDTH, FEED_FORWARD)}
    for layer in range(LAYERS):
        for part, (rows, columns) in sides.items():
            yield f"blk.{layer}.{part}.weight", normal(rows, columns, scale=0.02).astype(np.float16)
            yield f"blk.{layer}.{part}.bias", np.zeros(rows, dtype=np.float32)
        yield from norm(f"blk.{layer}.attn_output_norm")
        yield from norm(f"blk.{layer}.layer_output_norm")
    if rerank:
        yield "cls.weight", normal(WIDTH, WIDTH, scale=0.125)
        yield "cls.bias", np.zeros(WIDTH, dtype=np.float32)
        yield "cls.output.weight", normal(1, WIDTH)
        yield "cls.output.bias", np.zeros(1, dtype=np.float32)
