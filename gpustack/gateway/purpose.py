"""Whether a model answers what is asked of it, as far as its categories tell."""

from __future__ import annotations

from collections.abc import Collection
from typing import Final

from gpustack.domain.model import Category
from gpustack.domain.usage import Operation
from gpustack.gateway.path import InferencePath

_GENERATES: Final = frozenset({Operation.CHAT_COMPLETION, Operation.COMPLETION, Operation.TOKEN_COUNT})


def mismatch(route: InferencePath, name: str, categories: Collection[str]) -> str | None:
    """Why a model of these categories cannot answer on the route, as a sentence; ``None`` where it may.

    Its engine would say so with an error that makes clients try again, or answer with zeros.
    """
    if not categories or Category.LLM in categories:
        return None
    embeds, ranks = Category.EMBEDDING in categories, Category.RERANKER in categories
    if route.operation in _GENERATES and embeds:
        return f"'{name}' is an embedding model, which does not answer {route.path}: ask /v1/embeddings"
    if (route.operation in _GENERATES and ranks) or (
        route.operation is Operation.EMBEDDING and not embeds and ranks
    ):
        return f"'{name}' is a reranker, which does not answer {route.path}: ask /v1/rerank"
    return None
