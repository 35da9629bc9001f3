"""``transformers serve`` itself behind a daemon, which asks for models by the names of their deployments."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import openai
import pytest

from tests.daemon import Daemon
from tests.models.tiny_folder import make_tiny_folder
from tests.models.tiny_llm import REPLY
from tests.models.tiny_whisper import HEARD
from tests.models.tiny_whisper_folder import make_tiny_whisper_folder

from .sound import tone
from .vllm_cpu import STARTS_WITHIN

pytestmark = pytest.mark.engines


def deploy(running: Daemon, name: str, folder: Path, category: str) -> None:
    model = {"name": name, "source": "local_path", "local_path": str(folder), "backend": "Transformers"}
    status, answer = running.call("POST", "/v1/models", {**model, "categories": [category]})
    assert (status, answer["backend"]) == (200, "transformers"), answer
    running.running(name, within=STARTS_WITHIN)


def test_a_model_answers_under_the_name_of_its_deployment(
    running: Daemon, client: openai.OpenAI, tmp_path: Path
) -> None:
    """It knows a model by the path that it was given and no other name: the worker makes the name such a path."""
    deploy(running, "tiny", make_tiny_folder(tmp_path / "tiny"), "llm")
    asked: dict[str, Any] = {
        "model": "tiny",
        "messages": [{"role": "user", "content": "Who are you?"}],
        "max_tokens": 40,
    }
    whole = client.chat.completions.create(**asked)
    assert whole.choices[0].message.content == REPLY
    assert whole.usage is not None and whole.usage.completion_tokens > 3
    stream = client.chat.completions.create(**asked, stream=True)
    assert "".join(chunk.choices[0].delta.content or "" for chunk in stream if chunk.choices) == REPLY
    model = {"name": "a/b", "source": "local_path", "local_path": str(tmp_path), "backend": "Transformers"}
    status, refused = running.call("POST", "/v1/models", model)
    assert status == 422 and "serves a deployment only under a name of" in refused["message"]


def test_a_sound_is_written_down(running: Daemon, client: openai.OpenAI, tmp_path: Path) -> None:
    deploy(running, "listener", make_tiny_whisper_folder(tmp_path / "whisper"), "speech_to_text")
    sound = ("tone.wav", tone(2))
    heard = client.audio.transcriptions.create(model="listener", file=sound)
    assert heard.text.strip() == HEARD
    with client.audio.transcriptions.with_streaming_response.create(
        model="listener", file=sound, stream=True
    ) as answer:
        assert answer.headers["content-type"].startswith("text/event-stream")
        pieces = [line.removeprefix("data: ") for line in answer.iter_lines() if line]
    assert HEARD in "".join(pieces), "as plain text, which is its own way"
    with pytest.raises(openai.APIStatusError):
        client.audio.transcriptions.create(model="listener", file=("a.wav", b"no sound" * 100))
    assert client.audio.transcriptions.create(model="listener", file=sound).text.strip() == HEARD
