"""How this daemon reads model files: the reader of their headers, and the cache of whole files."""

from __future__ import annotations

import random
import time
from collections.abc import Awaitable, Callable
from functools import partial

from gpustack.artifacts.cache import Cache, CacheSettings
from gpustack.artifacts.fetch import FetchRules
from gpustack.artifacts.headers.facts_reader import FactsReader
from gpustack.artifacts.source import ModelScopeAccess
from gpustack.config.environment import Environment
from gpustack.config.loader import Configuration
from gpustack.domain.artifact import ModelSource
from gpustack.domain.facts import ModelFacts
from gpustack.domain.unit import MIB

MANY_RANGES = FetchRules(segments=16, segment_size=16 * MIB)
"""The ranges fetched with --enable-hf-transfer: many connections, for sites where each one is slow."""


def facts_reader(loaded: Configuration, rng: random.Random) -> Callable[[ModelSource], Awaitable[ModelFacts]]:
    """A function that reads the header of a model, from the hub and with the token of this daemon."""
    reader = FactsReader(
        clock=time.monotonic,
        rng=rng,
        endpoint=loaded.environment.hf_endpoint,
        library=loaded.options.ollama_library_base_url,
        model_scope=_model_scope(loaded.environment),
    )
    return partial(reader.read, token=loaded.options.huggingface_token)


def model_cache(loaded: Configuration, rng: random.Random) -> Cache:
    """The cache of model files below ``--cache-dir``."""
    settings = CacheSettings(
        endpoint=loaded.environment.hf_endpoint,
        library=loaded.options.ollama_library_base_url,
        model_scope=_model_scope(loaded.environment),
        xet=loaded.options.enable_hf_xet,
        rules=MANY_RANGES if loaded.options.enable_hf_transfer else FetchRules(),
    )
    return Cache(loaded.options.cache_dir, rng, settings)


def model_scope_endpoint(variables: Environment) -> str | None:
    """ModelScope's own variables: a whole address, or the name of its host as its programs take it."""
    domain = variables.modelscope_domain
    return variables.modelscope_endpoint or (None if domain is None else f"https://{domain}")


def _model_scope(variables: Environment) -> ModelScopeAccess:
    return ModelScopeAccess(endpoint=model_scope_endpoint(variables), token=variables.modelscope_api_token)
