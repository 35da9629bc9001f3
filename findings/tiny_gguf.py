"""Writes a Llama of random weights as a GGUF file of a few hundred kilobytes, for the findings that need a model.

One token a byte; at temperature 0 it answers with lower-case letters, and goes on until it is stopped.
"""

from __future__ import annotations

import string

import gguf
import numpy as np

WIDTH = 64
HEADS = 2
END = "<|end|>"
TEMPLATE = "{% for message in messages %}{{ message['content'] }}{% endfor %}"


def write(path: str, context: int = 4096) -> None:
    """Write the model to ``path``; the same bytes each time."""
    tokens = [*_spelled_bytes(), "th", END]
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_context_length(context)
    writer.add_embedding_length(WIDTH)
    writer.add_block_count(1)
    writer.add_feed_forward_length(WIDTH)
    writer.add_head_count(HEADS)
    writer.add_head_count_kv(HEADS)
    writer.add_rope_dimension_count(WIDTH // HEADS)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_vocab_size(len(tokens))
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("gpt-2")
    writer.add_token_list(tokens)
    writer.add_token_types(
        [gguf.TokenType.CONTROL if token == END else gguf.TokenType.NORMAL for token in tokens]
    )
    writer.add_token_merges(["t h"])  # llama.cpp wants one at least
    writer.add_eos_token_id(tokens.index(END))
    writer.add_add_bos_token(False)
    writer.add_chat_template(TEMPLATE)
    for name, values in _weights(tokens).items():
        writer.add_tensor(name, values)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def _spelled_bytes() -> list[str]:
    """Each byte as vocabularies of this kind spell it: those that are no visible Latin-1 move beyond it."""
    visible = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    moved = iter(range(0x100, 0x200))
    return [chr(byte) if byte in visible else chr(next(moved)) for byte in range(0x100)]


def _weights(tokens: list[str]) -> dict[str, np.ndarray]:
    random = np.random.default_rng(0)

    def matrix(rows: int) -> np.ndarray:
        return random.standard_normal((rows, WIDTH)).astype(np.float32)

    ones = np.ones(WIDTH, dtype=np.float32)
    layer = {
        f"blk.0.{part}.weight": matrix(WIDTH) * 0.02 for part in ("attn_q", "attn_k", "attn_v", "attn_output")
    }
    layer |= {f"blk.0.{part}.weight": matrix(WIDTH) * 0.02 for part in ("ffn_gate", "ffn_up", "ffn_down")}
    layer |= {f"blk.0.{part}.weight": ones for part in ("attn_norm", "ffn_norm")}
    said = np.array([[token in string.ascii_lowercase] for token in tokens], dtype=np.float32)
    return {
        "token_embd.weight": matrix(len(tokens)),
        **layer,
        "output_norm.weight": ones,
        "output.weight": matrix(len(tokens)) * said,
    }
