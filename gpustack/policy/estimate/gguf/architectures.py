"""What llama.cpp knows about architectures beside what a header says.

Facts of its sources (``src/models``, ``llama_model::create_memory``), each seen in what the engine allocates.
"""

from __future__ import annotations

from collections.abc import Mapping

ENCODERS = frozenset({
    "bert", "nomic-bert", "nomic-bert-moe", "neo-bert", "modern-bert", "eurobert", "gemma-embedding", "jina-bert-v2",
    "jina-bert-v3",
})  # fmt: skip
"""They read a whole text at once and keep nothing of it."""
HEADLESS = frozenset({"llama-embed"})
"""They have a cache that they do not look into, and no rows over a vocabulary."""
DIFFUSERS = frozenset({"dream", "llada", "llada-moe", "rnd1"})
"""They write a whole text at once, over and over, and keep nothing of it either."""
WITHOUT_FLASH = frozenset({"grok"})
"""Computed without flash attention whatever is asked."""
BIASED = frozenset({"t5", "t5encoder"})
"""Attention with a bias by distance, which is computed without flash attention though the cache is laid out for it."""
RECURRENT = frozenset({"mamba", "mamba2", "rwkv6", "rwkv6qwen2", "rwkv7", "arwkv7"})
"""All layers keep a state, and nothing else."""
BOTH = frozenset({"falcon-h1"})
"""All layers have attention and a state."""
LIGHTNING = frozenset({"minimax-01"})
"""The state is a matrix for each head, as wide as a key."""
STATE_PERIOD: Mapping[str, int] = {"qwen3next": 4, "qwen35": 4, "qwen35moe": 4, "minimax-01": 8}
"""One layer in so many has attention, the others a state, unless the header says how many."""

INDEX_ROWS: Mapping[str, int] = {"glm5-next": 3}
"""Rows of an index that sparse attention keeps of a token; one of most."""

WINDOW_PERIOD: Mapping[str, int] = {
    "gemma2": 2, "gpt-oss": 2, "modern-bert": 3, "cohere2": 4, "llama4": 4, "exaone4": 4, "exaone-moe": 4, "olmo2": 4,
    "afmoe": 4, "smallthinker": 4, "gemma3n": 5, "gemma3": 6, "gemma-embedding": 6, "plamo3": 8,
}  # fmt: skip
"""Of the layers of such a period one sees everything and the others slide, where the header does not list them. A
window in the header of an architecture that is not here is not used."""
FULL_FIRST = frozenset({"modern-bert", "smallthinker"})
"""The one that sees everything is the first of its period, not the last."""
WITHOUT_WINDOW = frozenset({"phi3"})
"""Those that do not slide whatever the header says."""
CHUNK: Mapping[str, int] = {"llama4": 8192}
"""Tokens of a window that the header does not tell."""
FORWARD_ONLY = frozenset({"nemotron_h", "nemotron_h_moe"})
"""A layer with a feed-forward has neither cache nor state."""
COMPRESSED = frozenset({"deepseek4"})
"""They keep a window of all tokens, and of longer ago one entry for several."""
RESIDUALS: Mapping[str, int] = {
    "cohere2": 6, "command-r": 6, "deepseek2": 6, "eurobert": 6, "falcon": 6, "gptneox": 6, "phi2": 6, "stablelm": 6,
    "granitehybrid": 7, "deci": 11,
}  # fmt: skip
"""Rows as wide as the model that are alive during a feed-forward; 5 of most, and more where attention is computed
beside it."""
MIXING: Mapping[str, float] = {"rwkv7": 20.5, "arwkv7": 25.6}
"""Rows as wide as the model that are alive while RWKV mixes tokens; 15.1 before its seventh version."""
KEPT: Mapping[str, int] = {
    "gemma3n": 6,
    "deepseek4": 18,
    "qwen3vl": 11,
    "qwen3vlmoe": 14,
    "kimi-k3": 4,
    "glm5-next": 10,
    "minimax-01": 3,
}
"""Further rows as wide as the model that are alive all the way."""
