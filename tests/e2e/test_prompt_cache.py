"""What users of one model learn of each other's prompts from what the engine reads anew, and how to part them."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.daemon import Daemon, daemon

PROMPT = "the same long beginning that two people send, word by word, for the engine to read once or twice"


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory, tiny_model: Path) -> Iterator[Daemon]:
    with daemon(tmp_path_factory.mktemp("prompt-cache") / "data") as one:
        for name, parameters in (("shared", []), ("parted", ["--no-cache-prompt"])):
            body = {
                "name": name,
                "source": "local_path",
                "local_path": str(tiny_model),
                "backend_parameters": parameters,
            }
            assert one.call("POST", "/v1/models", body)[0] == 200
        one.running("shared")
        one.running("parted")
        yield one


def cached(one: Daemon, model: str) -> int:
    """Tokens of the second of two equal prompts that were not read anew."""
    body = {"model": model, "prompt": PROMPT, "max_tokens": 2}
    for _ in range(2):
        status, answer = one.call("POST", "/v1/completions", body)
        assert status == 200, answer
    return int((answer["usage"].get("prompt_tokens_details") or {}).get("cached_tokens", 0))


def test_a_model_shares_what_was_read_unless_it_is_deployed_without_a_prompt_cache(running: Daemon) -> None:
    assert cached(running, "shared") > 0
    assert cached(running, "parted") == 0
    body = {"model": "parted", "prompt": PROMPT, "max_tokens": 2, "cache_prompt": True}
    assert running.call("POST", "/v1/completions", body)[0] == 400
