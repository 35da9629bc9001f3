"""Model files as this daemon reads them: the cache of their bytes and the reader of their headers, set up once."""

from __future__ import annotations

import random
import time
from collections.abc import Awaitable, Callable
from functools import partial

from gpustack.artifacts.cache import Cache, CacheSettings
from gpustack.artifacts.fetch import FetchRules
from gpustack.artifacts.headers.facts_reader import FactsReader
from gpustack.config.loader import Configuration
from gpustack.domain.artifact import ModelSource
from gpustack.domain.facts import ModelFacts
from gpustack.domain.unit import MIB

MANY_RANGES = FetchRules(segments=16, piece=16 * MIB)
"""What --enable-hf-transfer asks for: connections that are slow each, but not together."""


def facts_reader(loaded: Configuration, rng: random.Random) -> Callable[[ModelSource], Awaitable[ModelFacts]]:
    """Reads headers with this daemon's hub and token."""
    reader = FactsReader(
        clock=time.monotonic,
        rng=rng,
        endpoint=loaded.environment.hf_endpoint,
        library=loaded.options.ollama_library_base_url,
    )
    return partial(reader.read, token=loaded.options.huggingface_token)


def model_cache(loaded: Configuration, rng: random.Random) -> Cache:
    """The cache below ``--cache-dir``."""
    settings = CacheSettings(
        endpoint=loaded.environment.hf_endpoint,
        library=loaded.options.ollama_library_base_url,
        xet=loaded.options.enable_hf_xet,
        rules=MANY_RANGES if loaded.options.enable_hf_transfer else FetchRules(),
    )
    return Cache(loaded.options.cache_dir, rng, settings)
