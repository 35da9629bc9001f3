"""``transformers serve`` itself behind a daemon: chat and a stream, under the name of the deployment."""

from __future__ import annotations

from pathlib import Path

import openai
import pytest

from tests.daemon import daemon
from tests.models.tiny_folder import make_tiny_folder
from tests.models.tiny_llm import REPLY

from .vllm_cpu import STARTS_WITHIN, path_with, vllm_cpu

pytestmark = pytest.mark.engines


def test_a_model_answers_under_the_name_of_its_deployment(tmp_path: Path) -> None:
    """It knows a model by the path that it was given and no other name: the worker makes the name such a path."""
    programs = vllm_cpu()
    folder = make_tiny_folder(tmp_path / "tiny")
    with daemon(tmp_path / "data", env=path_with(programs)) as one:
        model = {"name": "tiny", "source": "local_path", "local_path": str(folder), "backend": "Transformers"}
        status, answer = one.call("POST", "/v1/models", {**model, "categories": ["llm"]})
        assert (status, answer["backend"]) == (200, "transformers"), answer
        one.running("tiny", within=STARTS_WITHIN)
        key = one.call("POST", "/v1/api-keys", {"name": "tests"})[1]["value"]
        with openai.OpenAI(base_url=f"{one.url}/v1", api_key=key, max_retries=0, timeout=300) as client:
            asked = [{"role": "user", "content": "Who are you?"}]
            whole = client.chat.completions.create(model="tiny", messages=asked, max_tokens=40)  # type: ignore[arg-type]
            assert whole.choices[0].message.content == REPLY
            assert whole.usage is not None and whole.usage.completion_tokens > 3
            stream = client.chat.completions.create(model="tiny", messages=asked, max_tokens=40, stream=True)  # type: ignore[call-overload]
            assert "".join(chunk.choices[0].delta.content or "" for chunk in stream if chunk.choices) == REPLY
        status, refused = one.call("POST", "/v1/models", {**model, "name": "a/b"})
        assert status == 422 and "serves a deployment only under a name of" in refused["message"]
