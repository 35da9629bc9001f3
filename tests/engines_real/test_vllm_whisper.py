"""A Whisper on vLLM behind a daemon: what is written down of a sound, streamed, translated, and what is no sound."""

from __future__ import annotations

import json
from collections.abc import Iterator

import openai
import pytest

from tests.daemon import Daemon, daemon
from tests.models.tiny_whisper import HEARD
from tests.models.tiny_whisper_folder import SAID_AT, make_tiny_whisper_folder

from .sound import tone
from .vllm_cpu import QUICK, STARTS_WITHIN, path_with, vllm_cpu

pytestmark = pytest.mark.engines

MODEL = "listener"


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Daemon]:
    programs = vllm_cpu()
    folder = make_tiny_whisper_folder(tmp_path_factory.mktemp("models") / "whisper")
    with daemon(tmp_path_factory.mktemp("vllm") / "data", env=path_with(programs)) as one:
        body = {"name": MODEL, "source": "local_path", "local_path": str(folder), "backend": "vllm"}
        parameters = [*QUICK, "--kv-cache-memory-bytes=67108864"]
        status, answer = one.call("POST", "/v1/models", {**body, "backend_parameters": parameters})
        assert status == 200, answer
        one.running(MODEL, within=STARTS_WITHIN)
        yield one


@pytest.fixture(scope="module")
def sound() -> tuple[str, bytes]:
    return ("tone.wav", tone(2))


def test_it_is_known_to_hear(running: Daemon) -> None:
    (model,) = running.call("GET", "/v1/models")[1]["items"]
    assert model["categories"] == ["speech_to_text"]
    (instance,) = running.instances(MODEL)
    assert instance["computed_resource_claim"]["ram"]


def test_a_sound_is_written_down_in_every_form_that_vllm_has(
    client: openai.OpenAI, sound: tuple[str, bytes]
) -> None:
    heard = client.audio.transcriptions.create(model=MODEL, file=sound)
    assert heard.text.strip() == HEARD
    text = client.audio.transcriptions.create(model=MODEL, file=sound, language="de", response_format="text")
    assert HEARD in str(text)
    verbose = client.audio.transcriptions.create(model=MODEL, file=sound, response_format="verbose_json")
    assert verbose.text.strip() == HEARD
    assert verbose.language == "en"
    (segment,) = verbose.segments or []
    assert (segment.start, segment.end, segment.text.strip()) == (0.0, SAID_AT, HEARD)


def test_a_transcript_is_streamed(client: openai.OpenAI, sound: tuple[str, bytes]) -> None:
    """In chunks of vLLM's own, which are no events of OpenAI's."""
    with client.audio.transcriptions.with_streaming_response.create(
        model=MODEL, file=sound, stream=True
    ) as answer:
        assert answer.headers["content-type"].startswith("text/event-stream")
        lines = [line.removeprefix("data: ") for line in answer.iter_lines() if line]
    assert lines.pop() == "[DONE]"
    pieces = [json.loads(line)["choices"][0]["delta"]["content"] for line in lines]
    assert "".join(pieces).strip() == HEARD and len(pieces) > 3


def test_long_sound_is_heard_in_parts(client: openai.OpenAI) -> None:
    heard = client.audio.transcriptions.create(model=MODEL, file=("long.wav", tone(45)))
    assert [part.strip() for part in heard.text.split(".") if part.strip()] == [HEARD.removesuffix(".")] * 2


def test_what_is_wrong_is_told_with_400_and_the_engine_goes_on(
    running: Daemon, client: openai.OpenAI, sound: tuple[str, bytes]
) -> None:
    before = running.instances(MODEL)[0]["pid"]
    for content in (b"no sound" * 100, b"", sound[1][:20]):
        with pytest.raises(openai.BadRequestError):
            client.audio.transcriptions.create(model=MODEL, file=("a.wav", content))
    with pytest.raises(openai.BadRequestError):
        client.audio.transcriptions.create(model=MODEL, file=sound, language="xx")
    assert client.audio.transcriptions.create(model=MODEL, file=sound).text.strip() == HEARD
    assert running.instances(MODEL)[0]["pid"] == before


def test_it_neither_chats_nor_speaks(client: openai.OpenAI) -> None:
    with pytest.raises(openai.APIStatusError) as refused:
        client.chat.completions.create(model=MODEL, messages=[{"role": "user", "content": "Who?"}])
    assert refused.value.status_code in (400, 404)
    with pytest.raises(openai.NotFoundError):
        client.audio.speech.create(model=MODEL, voice="de", input="Guten Tag.")


def test_requests_are_counted(running: Daemon, client: openai.OpenAI, sound: tuple[str, bytes]) -> None:
    client.audio.transcriptions.create(model=MODEL, file=sound)

    def rows() -> list[dict[str, object]]:
        found = running.call("GET", "/v1/dashboard/usage")[1]["items"]
        return [row for row in found if row.get("operation") == "audio_transcription"]

    assert running.until(rows, "the usage of transcriptions")
