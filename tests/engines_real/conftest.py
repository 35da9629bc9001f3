"""What the tests of large engines share: a daemon that finds them, and an OpenAI client of it."""

from __future__ import annotations

from collections.abc import Iterator

import openai
import pytest

from tests.daemon import Daemon, daemon

from .vllm_cpu import path_with, vllm_cpu


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Daemon]:
    """A daemon that finds vLLM and transformers; nothing is deployed yet."""
    programs = vllm_cpu()
    with daemon(tmp_path_factory.mktemp("engines") / "data", env=path_with(programs)) as one:
        yield one


@pytest.fixture(scope="module")
def client(running: Daemon) -> Iterator[openai.OpenAI]:
    key = running.call("POST", "/v1/api-keys", {"name": "tests"})[1]["value"]
    with openai.OpenAI(base_url=f"{running.url}/v1", api_key=key, max_retries=0, timeout=600) as one:
        yield one
