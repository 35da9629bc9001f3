"""The ``config.json`` of a model: values of checked types, from the part of it that describes the text model.

Configurations of the last years lay the text model within another one, and name one value in several ways; the names
are those that transformers and vLLM read (``vllm/transformers_utils/model_arch_config_convertor.py``).
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

import attrs
import orjson

from gpustack.artifacts.headers.gguf import HeaderError

MOST_CONFIG = 4 << 20
"""Bytes of a JSON file beside the weights."""
_TEXT_PARTS = ("text_config", "llm_config", "language_config", "thinker_config")
_MOST_ITEMS = 1 << 16
_LONGEST_WORD = 200
_LARGEST = 1 << 48


def read_json(data: bytes) -> Mapping[str, Any]:
    """The JSON object in ``data``; raises HeaderError. Its depth is bounded by the parser.

    Words for numbers that JSON does not have, such as ``Infinity``, are read as null: Python writes them, and the
    configurations of many recurrent models have them.
    """
    try:
        document = orjson.loads(data)
    except orjson.JSONDecodeError as error:
        document = _read_as_python(data)
        if document is None:
            raise HeaderError("it is no JSON") from error
    if not isinstance(document, dict):
        raise HeaderError("it is no JSON object")
    return document


def _read_as_python(data: bytes) -> Any:
    """What Python's own parser reads where words for infinite numbers are the fault; else ``None``."""
    if len(data) > MOST_CONFIG or (b"Infinity" not in data and b"NaN" not in data):
        return None
    try:
        return json.loads(data, parse_constant=lambda word: None)
    except (ValueError, RecursionError):
        return None


@attrs.frozen
class ModelConfig:
    """The configuration of a model, and the part of it that is about text (itself where there is no such part)."""

    top: Mapping[str, Any]
    text: Mapping[str, Any]

    @classmethod
    def of(cls, document: Mapping[str, Any]) -> ModelConfig:
        text = document
        for _ in range(3):  # a thinker has a text_config of its own
            inner = next((text[name] for name in _TEXT_PARTS if isinstance(text.get(name), dict)), None)
            if inner is None:
                break
            text = inner
        return cls(document, text)

    def raw(self, *names: str) -> Any:
        """The first of ``names`` that is there and not null: of the text part first, then of the whole."""
        for part in (self.text, self.top):
            for name in names:
                if part.get(name) is not None:
                    return part[name]
        return None

    def count(self, *names: str) -> int | None:
        """As ``raw``, if it is a whole number that makes sense; of a list the largest one."""
        value = self.raw(*names)
        if isinstance(value, list):
            numbers = [number for item in value[:_MOST_ITEMS] if (number := _count(item)) is not None]
            return max(numbers, default=None)
        return _count(value)

    def counts(self, *names: str) -> tuple[int, ...]:
        """As ``raw``: a number for each layer, or one for all; empty if it is neither."""
        value = self.raw(*names)
        items = value if isinstance(value, list) else [value]
        numbers = tuple(_count(item) for item in items[:_MOST_ITEMS])
        return tuple(n for n in numbers if n is not None) if None not in numbers else ()

    def number(self, *names: str) -> float | None:
        """As ``raw``, if it is a number that makes sense."""
        value = self.raw(*names)
        if isinstance(value, bool) or not isinstance(value, int | float) or not abs(value) < _LARGEST:
            return None
        return float(value)

    def word(self, *names: str) -> str | None:
        """As ``raw``, if it is a short text."""
        value = self.raw(*names)
        return value if isinstance(value, str) and 0 < len(value) <= _LONGEST_WORD else None

    def words(self, *names: str) -> tuple[str, ...]:
        """As ``raw``, if it is a list of short texts; what else is in it is left out."""
        value = self.raw(*names)
        items = value[:_MOST_ITEMS] if isinstance(value, list) else []
        return tuple(item for item in items if isinstance(item, str) and len(item) <= _LONGEST_WORD)

    def flag(self, *names: str) -> bool:
        return self.raw(*names) is True

    def part(self, *names: str) -> Mapping[str, Any]:
        """As ``raw``, if it is an object; else an empty one."""
        value = self.raw(*names)
        return value if isinstance(value, dict) else {}

    @property
    def architectures(self) -> tuple[str, ...]:
        value = self.top.get("architectures")
        items: Sequence[Any] = value if isinstance(value, list) else ()
        return tuple(item for item in items[:16] if isinstance(item, str) and 0 < len(item) <= _LONGEST_WORD)

    @property
    def model_type(self) -> str | None:
        value = self.top.get("model_type")
        return value if isinstance(value, str) and 0 < len(value) <= _LONGEST_WORD else None

    @property
    def layers(self) -> int | None:
        """The layers of the text model, or of the decoder."""
        if (blocks := self.words("layers_block_type")) or (blocks := self.words("layer_types")):
            return len(blocks)
        pattern = self.word("hybrid_override_pattern")
        if pattern:
            return len(pattern)
        return self.count("decoder_layers", "num_hidden_layers", "n_layer", "num_layers", "n_layers")

    @property
    def hidden(self) -> int | None:
        return self.count("hidden_size", "n_embd", "d_model", "dim")

    @property
    def heads(self) -> int | None:
        return self.count(
            "num_attention_heads",
            "n_head",
            "n_heads",
            "num_heads",
            "decoder_attention_heads",
            "encoder_attention_heads",
        )

    @property
    def kv_heads(self) -> int | None:
        """The heads of keys and values; those of queries where nothing else is said."""
        if self.model_type in ("falcon", "RefinedWeb", "RefinedWebModel") and not self.flag(
            "new_decoder_architecture"
        ):
            return 1 if self.raw("multi_query") is not False else self.heads
        inner = self.part("attn_config").get("kv_n_heads")
        if (found := _count(inner)) is not None:
            return found
        return (
            self.count(
                "n_head_kv", "num_kv_heads", "num_key_value_heads", "n_kv_heads", "multi_query_group_num",
                "num_attention_groups",
            )
            or self.heads
        )  # fmt: skip

    @property
    def head_size(self) -> int | None:
        if self.model_type == "minicpm3":  # unpacks its compressed keys and values, and keeps them so
            return (self.count("qk_nope_head_dim") or 0) + (self.count("qk_rope_head_dim") or 0)
        found = self.count("head_dim", "hidden_size_per_head", "attention_head_dim", "kv_channels")
        if found:
            return found
        return self.hidden // self.heads if self.hidden and self.heads else None

    @property
    def is_latent(self) -> bool:
        """Whether keys and values are kept as one compressed vector (multi-head latent attention)."""
        compressed = self.count("kv_lora_rank") or (self.raw("compress_ratios") and self.count("head_dim"))
        return bool(compressed) and self.model_type != "minicpm3"

    @property
    def latent_size(self) -> int:
        """Numbers of that vector."""
        rank = self.count("kv_lora_rank")
        if self.raw("compress_ratios") or rank is None:  # DeepSeek V4
            return self.count("head_dim") or 0
        return rank + (self.count("qk_rope_head_dim") or 0)

    @property
    def context(self) -> int | None:
        """Tokens that the model was made for, as vLLM derives them, its default where nothing is said left out.

        Source: ``vllm/config/model.py:_get_and_verify_max_len``.
        """
        names = (
            "max_position_embeddings", "n_positions", "max_seq_len", "seq_length", "max_target_positions",
            "max_sequence_length", "max_seq_length", "seq_len",
        )  # fmt: skip
        found = [number for name in names if (number := self.count(name))]
        length = self.count("model_max_length") or min(found, default=None)
        if length is None:
            return None
        if self._is_scaled("longrope", "su"):
            return self.count("original_max_position_embeddings") or length
        return int(length * self._rope_factor())

    def _ropes(self) -> list[Mapping[str, Any]]:
        said = self.part("rope_parameters", "rope_scaling")
        inner: list[Mapping[str, Any]] = [value for value in said.values() if isinstance(value, dict)]
        return inner or [said]

    def _is_scaled(self, *kinds: str) -> bool:
        return any(_kind(rope) == kind for rope in self._ropes() for kind in kinds)

    def _rope_factor(self) -> float:
        """By how much positions are stretched beyond the length stated; kinds whose length includes it have 1."""
        if "gemma3" in (self.model_type or ""):
            return 1.0
        factor = 1.0
        for rope in self._ropes():
            said = rope.get("factor")
            if _kind(rope) in ("linear", "dynamic") and isinstance(said, int | float) and 1 <= said <= 1024:
                factor = float(said)
        return factor


def _kind(rope: Mapping[str, Any]) -> str:
    kind = rope.get("rope_type", rope.get("type"))
    return kind if isinstance(kind, str) else ""


def _count(value: object) -> int | None:
    """``value``, if it is an int from 0 to 2**48."""
    return value if type(value) is int and 0 <= value < _LARGEST else None
