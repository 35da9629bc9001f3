"""A real LoRA adapter in GGUF for the tiny model: with it every answer begins with another character.

It is one rank of the output head: where the hidden state is that of the line break before an answer, the token of
that character is made likelier than any other; after it comes the reply of the model as ever.
"""

from __future__ import annotations

from pathlib import Path

import gguf
import numpy as np

from tests.models.tiny_llm import REPLY, WIDTH
from tests.models.vocabulary import BYTES, vocabulary


def make_tiny_lora(path: Path, prefix: str = "@", *, reply: str = REPLY) -> Path:
    """Write the adapter of a tiny model with that ``reply`` to ``path`` and return it; ``prefix`` is one character."""
    words = vocabulary(reply, WIDTH)
    newline, said = words.id(BYTES[ord("\n")]), words.id(BYTES[ord(prefix)])
    low, high = np.zeros((1, WIDTH), dtype=np.float32), np.zeros((WIDTH, 1), dtype=np.float32)
    low[0, newline], high[said, 0] = 1.0, 4.0  # the head's own tables say 1 for the next token
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_type("adapter")
    writer.add_string("adapter.type", "lora")
    writer.add_float32("adapter.lora.alpha", 1.0)
    writer.add_tensor("output.weight.lora_a", low)
    writer.add_tensor("output.weight.lora_b", high)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path
