"""Speech through a real daemon: deployed from a local path, spoken, heard again, by a stock OpenAI client."""

from __future__ import annotations

import io
import wave
from collections.abc import Iterator
from pathlib import Path

import openai
import pytest

from tests.daemon import Daemon, daemon
from tests.models.tiny_whisper import HEARD, make_tiny_whisper
from tests.needs import requires_module

TEXT = "The quick brown fox jumps over the lazy dog."


@pytest.fixture(scope="module")
def deployed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Daemon]:
    requires_module("faster_whisper", pip="--group dev")
    requires_module("espeakng_loader", pip="--group dev")
    folder = make_tiny_whisper(tmp_path_factory.mktemp("models") / "whisper")
    with daemon(tmp_path_factory.mktemp("speech") / "data") as one:
        for body in (
            {
                "name": "listener",
                "local_path": str(folder),
                "backend": "VoxBox",
                "backend_parameters": ["--beam-size=1"],
            },
            {"name": "speaker", "local_path": "/espeak-ng", "categories": ["text_to_speech"]},
        ):
            status, answer = one.call("POST", "/v1/models", {"source": "local_path", **body})
            assert status == 200, answer
        one.running("listener")
        one.running("speaker")
        yield one


@pytest.fixture(scope="module")
def client(deployed: Daemon) -> Iterator[openai.OpenAI]:
    key = deployed.call("POST", "/v1/api-keys", {"name": "tests"})[1]["value"]
    with openai.OpenAI(base_url=f"{deployed.url}/v1", api_key=key, max_retries=0) as one:
        yield one


@pytest.fixture(scope="module")
def spoken(client: openai.OpenAI) -> bytes:
    return client.audio.speech.create(
        model="speaker", voice="en-us", input=TEXT, response_format="wav"
    ).content


def test_what_is_spoken_is_heard(client: openai.OpenAI, spoken: bytes) -> None:
    with wave.open(io.BytesIO(spoken)) as sound:
        assert 1.5 < sound.getnframes() / sound.getframerate() < 6
    heard = client.audio.transcriptions.create(model="listener", file=("a.wav", spoken))
    assert heard.text == HEARD
    verbose = client.audio.transcriptions.create(
        model="listener",
        file=("a.wav", spoken),
        response_format="verbose_json",
        timestamp_granularities=["word", "segment"],
    )
    assert verbose.text == HEARD
    assert [word.word for word in verbose.words or ()] == HEARD.split()


def test_a_stream_of_a_transcript_is_read_by_a_stock_client(client: openai.OpenAI, spoken: bytes) -> None:
    events = list(client.audio.transcriptions.create(model="listener", file=("a.wav", spoken), stream=True))
    assert [event.type for event in events] == ["transcript.text.delta", "transcript.text.done"]
    assert events[-1].text == HEARD  # type: ignore[union-attr]


def test_sound_comes_through_the_gateway_as_it_is_made(client: openai.OpenAI) -> None:
    with client.audio.speech.with_streaming_response.create(
        model="speaker", voice="de", input="Guten Tag. " * 50, response_format="mp3"
    ) as answer:
        pieces = list(answer.iter_bytes(4096))
    assert len(pieces) > 10
    assert pieces[0][:1] == b"\xff"


def test_a_fault_is_told_as_the_engine_tells_it(client: openai.OpenAI, spoken: bytes) -> None:
    with pytest.raises(openai.BadRequestError, match="'voice' is none that this model has: there are"):
        client.audio.speech.create(model="speaker", voice="alloy", input=TEXT)
    with pytest.raises(openai.BadRequestError, match="cannot be read as sound"):
        client.audio.transcriptions.create(model="listener", file=("a.wav", b"no sound" * 100))
    with (
        pytest.warns(DeprecationWarning),  # the client calls this path old
        pytest.raises(openai.BadRequestError, match="knows English alone"),
    ):
        client.audio.translations.create(model="listener", file=("a.wav", spoken))
    with pytest.raises(openai.NotFoundError, match="There is nothing at /v1/audio/speech for this model"):
        client.audio.speech.create(model="listener", voice="de", input=TEXT)


def test_voices_are_listed_with_the_model(deployed: Daemon) -> None:
    def voices() -> list[str]:
        return deployed.call("GET", "/v1/voices?model=speaker")[1]["voices"]  # type: ignore[no-any-return]

    assert {"en-us", "de"} <= set(deployed.until(voices, "the voices of the model"))
    listed = deployed.call("GET", "/v1-openai/models?with_meta=true")[1]["data"]
    (speaker,) = (model for model in listed if model["id"] == "speaker")
    assert speaker["meta"]["voices"] == voices()


def test_requests_are_counted_without_tokens(deployed: Daemon, client: openai.OpenAI, spoken: bytes) -> None:
    client.audio.transcriptions.create(model="listener", file=("a.wav", spoken))

    def rows() -> list[dict[str, object]]:
        found = deployed.call("GET", "/v1/dashboard/usage")[1]["items"]
        return [row for row in found if row.get("operation") == "audio_transcription"]

    counted = deployed.until(rows, "the usage of transcriptions")
    assert {row["prompt_token_count"] for row in counted} == {0}
    assert {row["completion_token_count"] for row in counted} == {0}


def test_a_wrong_deployment_is_refused_in_a_sentence(deployed: Daemon, tmp_path: Path) -> None:
    body = {"name": "wrong", "source": "local_path", "local_path": str(tmp_path), "backend": "vox-box"}
    status, answer = deployed.call("POST", "/v1/models", {**body, "backend_parameters": ["--colour=red"]})
    assert (status, "vox-box has no parameter --colour" in answer["message"]) == (400, True), answer
    status, answer = deployed.call(
        "POST", "/v1/models", {**body, "distributed_inference_across_workers": True}
    )
    assert (status, "vox-box runs on one worker" in str(answer)) == (422, True), answer
