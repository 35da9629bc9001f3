"""A real Llama-architecture GGUF of about 3 MB, its weights written by hand so that it says one sentence.

The embedding of a token is a one-hot vector and the output head is a table of successors, so the answer to
any chat is ``reply`` and the end of the turn. Attention and feed-forward weights are seeded noise: too faint
to change the answer, but they cost what such layers cost (KV cache, offload, splits). Give each deployment
its own reply and a test sees which replica answered.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import gguf
import numpy as np

from tests.models.vocabulary import (
    BYTES,
    CONTROL,
    END_OF_TURN,
    PADDING,
    START_OF_TEXT,
    Vocabulary,
    vocabulary,
)

REPLY = "Hello! I am a tiny model served by this cluster."
WIDTH = 512  # embedding width and vocabulary size: the one-hot trick needs them equal
HEADS = 8
KV_HEADS = 2
HEAD_SIZE = 32
FEED_FORWARD = 128

CHAT_TEMPLATE = (
    "{% for message in messages %}"
    "{{ '<|im_start|>' + message['role'] + '\\n' + message['content'] + '<|im_end|>' + '\\n' }}"
    "{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}"
)

Tensor = tuple[str, np.ndarray]


def make_tiny_llm(
    path: Path, reply: str = REPLY, *, name: str = "tiny", layers: int = 2, context: int = 8192, seed: int = 0
) -> Path:
    """Write the model to ``path`` and return it; the same arguments give the same bytes.

    With ``ignore_eos`` a request hears the sentence again and again, which is handy for streams and aborts.
    Raises ValueError when the reply cannot be said (see ``vocabulary``).
    """
    words = vocabulary(reply, WIDTH)
    writer = gguf.GGUFWriter(path, "llama")
    _describe(writer, name=name, layers=layers, context=context)
    _add_tokenizer(writer, words)
    for tensor, values in _tensors(words, layers, np.random.default_rng(seed)):
        writer.add_tensor(tensor, values)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def _describe(writer: gguf.GGUFWriter, *, name: str, layers: int, context: int) -> None:
    writer.add_name(name)
    writer.add_type("model")
    writer.add_context_length(context)
    writer.add_embedding_length(WIDTH)
    writer.add_block_count(layers)
    writer.add_feed_forward_length(FEED_FORWARD)
    writer.add_head_count(HEADS)
    writer.add_head_count_kv(KV_HEADS)
    writer.add_key_length(HEAD_SIZE)
    writer.add_value_length(HEAD_SIZE)
    writer.add_rope_dimension_count(HEAD_SIZE)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_vocab_size(WIDTH)
    writer.add_file_type(gguf.LlamaFileType.MOSTLY_F16)


def _add_tokenizer(writer: gguf.GGUFWriter, words: Vocabulary) -> None:
    def kind(token: str) -> gguf.TokenType:
        if token in CONTROL:
            return gguf.TokenType.CONTROL
        return gguf.TokenType.UNUSED if token.startswith(PADDING) else gguf.TokenType.NORMAL

    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("gpt-2")
    writer.add_token_list(list(words.tokens))
    writer.add_token_types([kind(token) for token in words.tokens])
    writer.add_token_merges(list(words.merges))
    writer.add_bos_token_id(words.id(START_OF_TEXT))
    writer.add_eos_token_id(words.id(END_OF_TURN))
    writer.add_add_bos_token(False)
    writer.add_chat_template(CHAT_TEMPLATE)


def _tensors(words: Vocabulary, layers: int, rng: np.random.Generator) -> Iterator[Tensor]:
    def faint(rows: int, columns: int) -> np.ndarray:
        return (rng.standard_normal((rows, columns)) * 0.005).astype(np.float16)

    ones = np.ones(WIDTH, dtype=np.float32)
    yield "token_embd.weight", np.eye(WIDTH, dtype=np.float16)
    for layer in range(layers):
        block = f"blk.{layer}."
        yield block + "attn_norm.weight", ones
        yield block + "attn_q.weight", faint(HEADS * HEAD_SIZE, WIDTH)
        yield block + "attn_k.weight", faint(KV_HEADS * HEAD_SIZE, WIDTH)
        yield block + "attn_v.weight", faint(KV_HEADS * HEAD_SIZE, WIDTH)
        yield block + "attn_output.weight", faint(WIDTH, HEADS * HEAD_SIZE)
        yield block + "ffn_norm.weight", ones
        yield block + "ffn_gate.weight", faint(FEED_FORWARD, WIDTH)
        yield block + "ffn_up.weight", faint(FEED_FORWARD, WIDTH)
        yield block + "ffn_down.weight", faint(WIDTH, FEED_FORWARD)
    yield "output_norm.weight", ones
    yield "output.weight", _successors(words)


def _successors(words: Vocabulary) -> np.ndarray:
    """Row n, column t is 1 where token n follows token t; whatever is not in the reply starts it."""
    newline, end = words.id(BYTES[ord("\n")]), words.id(END_OF_TURN)
    follows = dict.fromkeys(range(WIDTH), words.reply[0])
    follows.update(zip(words.reply, (*words.reply[1:], end), strict=True))
    follows[end] = newline
    table = np.zeros((WIDTH, WIDTH), dtype=np.float16)
    for token, following in follows.items():
        table[following, token] = 1
    return table
