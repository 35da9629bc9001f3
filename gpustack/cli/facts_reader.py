"""Model files as this daemon reads them: the cache of their bytes and the reader of their headers, set up once."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

from gpustack.config.load import Loaded
from gpustack.domain.artifact import ModelSource
from gpustack.domain.facts import ModelFacts


def facts_reader(loaded: Loaded) -> Callable[[ModelSource], Awaitable[ModelFacts]]:
    async def read(source: ModelSource) -> ModelFacts:
        return ModelFacts()
    return read

def model_cache(loaded: Loaded) -> Any: ...
