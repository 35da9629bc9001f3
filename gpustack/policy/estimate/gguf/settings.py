"""The settings of llama-server that decide about memory."""

from __future__ import annotations

from collections.abc import Mapping

import attrs

CELL_BYTES: Mapping[str, float] = {
    "f32": 4.0,
    "f16": 2.0,
    "bf16": 2.0,
    "q8_0": 34 / 32,
    "q5_1": 24 / 32,
    "q5_0": 22 / 32,
    "q4_1": 20 / 32,
    "q4_0": 18 / 32,
    "iq4_nl": 18 / 32,
}
"""Bytes per number in the KV cache."""


@attrs.frozen(kw_only=True)
class GgufSettings:
    """The settings of llama-server that decide about memory. ``offload_layers`` ``None`` means all."""

    ctx: int
    parallel: int = 1
    ubatch: int = 512
    unified: bool = True
    """Slots share one KV cache of ``ctx`` cells instead of having ``ctx / parallel`` each."""
    key_type: str = "f16"
    value_type: str = "f16"
    flash_attention: bool = True
    """Asked for or left to the engine. Some architectures are computed without it all the same."""
    full_window: bool = False
    kv_offload: bool = True
    logits: bool = True
    """Whether there is text, with a row over the vocabulary for each slot, or vectors (embedding, ranking)."""
    offload_layers: int | None = None
    shares: tuple[float, ...] = ()
    """How the offloaded layers are divided among devices; empty is no device at all."""
    remote: int = 0
    """How many of these, the first ones, belong to other workers (RPC)."""
    prompt_cache: int = 0
    """Bytes of host memory for prompts kept."""
    checkpoints: int = 0
    """Copies a slot may keep, in host memory, of what its sliding and recurrent layers hold."""

    host_experts: int = 0
    """Layers, the first ones, whose experts stay on the host."""
    drafted: int = 0
    """Tokens guessed ahead, by a draft model or by layers of the model itself; each may have to be taken back."""
    predicts: bool = False
    """The layers that predict further tokens are run, with caches and buffers of their own."""

    @property
    def cells(self) -> int:
        """Tokens that one stream of the KV cache has room for."""
        return padded(self.ctx if self.unified else max(1, self.ctx // self.parallel))

    @property
    def streams(self) -> int:
        """KV caches side by side."""
        return 1 if self.unified else self.parallel

    @property
    def tokens(self) -> int:
        """Tokens that are worked on at once."""
        return min(self.ubatch, padded(self.ctx))


def padded(cells: int, to: int = 256) -> int:
    """The next multiple, as llama.cpp rounds the cells of a cache."""
    return -(-cells // to) * to
