"""Facts come from other machines: what would make nonsense of sums and divisions is no fact."""

from __future__ import annotations

from typing import Any

import orjson
import pytest

from gpustack.domain.document import decode, encode
from gpustack.domain.facts import ModelFacts, StateSpace, TensorBytes, gguf_category
from gpustack.domain.model import Category
from gpustack.errors import Invalid


@pytest.mark.parametrize(
    "absurd",
    [
        {"total_layers": -3},
        {"total_layers": 1 << 40},
        {"weights": -1},
        {"file_size": 2**63},
        {"heads": [32, -1]},
        {"heads": [1] * 100_000},
        {"tensors": {"layers": [-1]}},
        {"state_space": {"inner_size": -1}},
        {"embedding_length": "many"},
        {"sliding_window_pattern": -2},
    ],
    ids=str,
)
def test_absurd_facts_of_a_worker_are_refused(absurd: dict[str, Any]) -> None:
    with pytest.raises(Invalid, match="ModelFacts"):
        decode(orjson.dumps(absurd), ModelFacts)


def test_facts_survive_the_way_to_another_machine() -> None:
    facts = ModelFacts(
        total_layers=2,
        heads=(8, 0),
        sliding_window_pattern=(True, False),
        state_space=StateSpace(inner_size=4),
        tensors=TensorBytes(layers=(5, 6), tied=True),
    )
    assert decode(encode(facts), ModelFacts) == facts


@pytest.mark.parametrize(
    ("architecture", "pooling", "category"),
    [
        ("llama", None, Category.LLM),
        ("llama-embed", None, Category.EMBEDDING),
        ("eurobert", None, Category.EMBEDDING),
        ("qwen3", "last", Category.EMBEDDING),
        ("qwen3", "rank", Category.RERANKER),
        ("dream", None, Category.UNKNOWN),
        ("eagle3", None, Category.UNKNOWN),
        ("wavtokenizer-dec", "mean", Category.UNKNOWN),
        ("clip", None, Category.UNKNOWN),
    ],
)
def test_what_cannot_answer_with_text_or_vectors_is_of_no_category(
    architecture: str, pooling: str | None, category: Category
) -> None:
    assert gguf_category(architecture, pooling) is category
