"""The speech server: what is spoken is decoded and heard again, and everything that a client may get wrong."""

from __future__ import annotations

import io
import os
import signal
import socket
import subprocess
import sys
import time
import wave
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.child import ROOT, environment
from tests.launchers.engine_server import BOUNDARY, KEY, EngineServer, form, serving
from tests.models.tiny_whisper import HEARD, make_tiny_whisper
from tests.needs import requires_module

PROGRAM = "gpustack.launchers.audio"
TEXT = "The quick brown fox jumps over the lazy dog. It was a sunny day."
SPEECH, TRANSCRIPTIONS = "/v1/audio/speech", "/v1/audio/transcriptions"
TRANSLATED = "This is what tiny translations say!"


@pytest.fixture(scope="module", autouse=True)
def _needs_the_extra() -> None:
    requires_module("faster_whisper", pip="--group dev")
    requires_module("espeakng_loader", pip="--group dev")


@pytest.fixture(scope="module")
def speaker() -> Iterator[EngineServer]:
    with serving(PROGRAM, "--model", "/espeak-ng", "--served-model-name", "speaker") as server:
        yield server


@pytest.fixture(scope="module")
def listener(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EngineServer]:
    folder = make_tiny_whisper(tmp_path_factory.mktemp("whisper"))
    with serving(PROGRAM, "--model", str(folder), "--beam-size", "1") as server:
        yield server


def spoken(server: EngineServer, text: str = TEXT, **fields: Any) -> bytes:
    answer = server.post(SPEECH, {"model": "m", "input": text, "voice": "en-us", **fields})
    assert answer.status == 200, answer.body
    return answer.body


@pytest.fixture(scope="module")
def sentence(speaker: EngineServer) -> bytes:
    return spoken(speaker, response_format="wav")


def silence(seconds: float) -> bytes:
    file = io.BytesIO()
    with wave.open(file, "wb") as sound:
        sound.setnchannels(1)
        sound.setsampwidth(2)
        sound.setframerate(16_000)
        sound.writeframes(bytes(2 * int(seconds * 16_000)))
    return file.getvalue()


def decoded(sound: bytes) -> Any:
    """Samples of one channel, from -1 to 1, and how many make a second."""
    import av
    import numpy as np

    with av.open(io.BytesIO(sound)) as container:
        rate = container.streams.audio[0].rate
        resampler = av.AudioResampler(format="flt", layout="mono", rate=rate)
        frames = [one for frame in container.decode(audio=0) for one in resampler.resample(frame)]
        return np.concatenate([frame.to_ndarray().reshape(-1) for frame in frames]), rate


def alike(one: bytes, other: bytes) -> bool:
    """Whether two sounds of raw samples are the same text by the same voice, which is not the same to the last bit."""
    import numpy as np

    left, right = (np.frombuffer(sound, dtype="<i2").astype(float) for sound in (one, other))
    if abs(len(left) - len(right)) > 0.02 * len(left):
        return False
    windows = min(len(left), len(right)) // 1200
    loud = [np.abs(sound[: windows * 1200]).reshape(windows, 1200).mean(axis=1) for sound in (left, right)]
    return bool(np.corrcoef(*loud)[0, 1] > 0.95)


# --- speech


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("wav", "audio/wav"),
        ("flac", "audio/flac"),
        ("mp3", "audio/mpeg"),
        ("opus", "audio/ogg"),
        ("aac", "audio/aac"),
    ],
)
def test_every_format_holds_the_same_sound(
    speaker: EngineServer, sentence: bytes, name: str, kind: str
) -> None:
    """Its length and its loudness, second by second; there is a pause between the two sentences."""
    import numpy as np

    answer = speaker.post(SPEECH, {"input": TEXT, "voice": "en-us", "response_format": name})
    assert answer.headers["content-type"] == kind
    samples, rate = decoded(answer.body)
    reference, base = decoded(sentence)
    seconds = len(samples) / rate
    assert seconds == pytest.approx(len(reference) / base, abs=0.15)

    def loudness(of: Any, per_second: int) -> list[float]:
        return [float(np.sqrt(np.square(part).mean())) for part in np.array_split(of, int(seconds * 4))]

    assert loudness(samples, rate) == pytest.approx(loudness(reference, base), abs=0.03)
    assert max(loudness(reference, base)) > 0.05
    quiet = [np.abs(part).max() < 0.01 for part in np.array_split(samples, int(seconds * 20))]
    assert any(quiet[len(quiet) // 2 : -10]), "there is no pause after the first sentence"


def test_raw_samples_are_those_that_clients_expect(speaker: EngineServer, sentence: bytes) -> None:
    raw = spoken(speaker, response_format="pcm")
    with wave.open(io.BytesIO(sentence)) as sound:
        assert (sound.getframerate(), sound.getsampwidth(), sound.getnchannels()) == (24_000, 2, 1)
        assert alike(sound.readframes(sound.getnframes()), raw)


def test_speed_changes_the_length(speaker: EngineServer) -> None:
    slow, usual, fast = (len(spoken(speaker, response_format="pcm", speed=one)) for one in (0.5, 1, 2))
    assert slow > 1.5 * usual > 2.5 * fast


def test_voices_differ_and_are_found_by_name(speaker: EngineServer) -> None:
    american, german, large, default = (
        spoken(speaker, voice=voice, response_format="pcm") for voice in ("en-us", "de", "EN-US", "default")
    )
    assert not alike(american, german)
    assert alike(american, large)
    assert alike(american, default)
    voices = speaker.ask("/v1/voices").json["voices"]
    assert {"en-us", "de", "fr-fr", "cmn"} <= set(voices)
    assert speaker.ask("/v1/models").json["data"][0]["voices"] == voices


def test_a_stream_of_wav_has_the_same_sound(speaker: EngineServer, sentence: bytes) -> None:
    streamed = speaker.post(
        SPEECH, {"input": TEXT, "voice": "en-us", "response_format": "wav", "stream": True}
    )
    assert "content-length" not in streamed.headers
    assert streamed.body[:4] == b"RIFF"
    assert alike(streamed.body[44:], sentence[44:])


def test_sound_comes_as_events_where_that_is_asked_for(speaker: EngineServer) -> None:
    import base64

    body = {"input": TEXT, "voice": "en-us", "response_format": "pcm", "stream_format": "sse"}
    *deltas, done = speaker.post(SPEECH, body).events
    assert done == {"type": "speech.audio.done"}
    assert {one["type"] for one in deltas} == {"speech.audio.delta"}
    sound = b"".join(base64.b64decode(one["audio"]) for one in deltas)
    assert alike(sound, spoken(speaker, response_format="pcm"))


@pytest.mark.parametrize(
    ("fields", "sentence"),
    [
        ({"voice": "alloy"}, "'voice' is none that this model has: there are"),
        ({"voice": "en-usa"}, "en-us"),
        ({"voice": 7}, "'voice' is none"),
        ({"input": ""}, "'input' must be the text to speak"),
        ({"input": None}, "'input' must be the text to speak"),
        ({"input": "a" * 5000}, "'input' has 5000 characters, and may have 4096"),
        ({"input": "\ud800"}, "'input' is no valid Unicode text"),
        ({"speed": 9}, "'speed' must be a number from 0.25 to 4"),
        ({"speed": "NaN"}, "'speed' must be a number"),
        ({"response_format": "ogg"}, "'response_format' must be one of mp3, opus"),
        ({"response_format": ["mp3"]}, "'response_format' must be one of mp3, opus"),
        ({"stream": "perhaps"}, "'stream' must be true or false"),
    ],
)
def test_what_is_wrong_is_told_in_a_sentence(
    speaker: EngineServer, fields: dict[str, Any], sentence: str
) -> None:
    answer = speaker.post(SPEECH, {"input": "Hello", "voice": "en-us", **fields})
    assert answer.status == 400
    assert sentence in answer.fault


@pytest.mark.parametrize("body", [b"", b"{", b"[]", b"\xff", b"[" * 100_000])
def test_a_body_that_is_no_json_object_is_refused(speaker: EngineServer, body: bytes) -> None:
    assert speaker.ask(SPEECH, body, method="POST").status == 400


def test_nothing_in_a_text_is_a_command(speaker: EngineServer) -> None:
    """Marks of SSML, phonemes in brackets, lines, and a zero are spoken or passed over."""
    for text in ('<audio src="/etc/passwd"/>Hello', "[[h@loU]]", "stop\nstop", "a\0b", "<speak>"):
        assert len(spoken(speaker, text, response_format="pcm")) > 2000


def test_only_who_has_the_key_is_answered(speaker: EngineServer) -> None:
    assert speaker.ask("/health", key=None).status == 200
    for path in ("/v1/models", "/metrics", "/v1/voices", "/nothing"):
        assert speaker.ask(path, key=None).status == 401
        assert speaker.ask(path, key="wrong").status == 401
    assert speaker.ask("/nothing").status == 404
    assert speaker.ask(SPEECH).status == 405
    assert speaker.ask(TRANSCRIPTIONS, b"", method="POST").status == 404


def test_a_client_that_leaves_ends_the_work_and_others_take_turns() -> None:
    """A client that reads nothing holds the only turn. One may wait meanwhile, a second one is sent away."""
    with serving(PROGRAM, "--model", "espeak-ng", "--parallel", "1", "--max-waiting", "1") as server:
        body = b'{"input": "%b", "voice": "en-us", "response_format": "pcm"}' % (b"hello world. " * 300)
        first, second = _raw_post(server, body), None
        try:
            _until(lambda: server.metric("voxbox:requests_running") == 1)
            second = _raw_post(server, b'{"input": "Hello", "voice": "en-us", "response_format": "pcm"}')
            _until(lambda: server.metric("voxbox:requests_waiting") == 1)
            third = server.post(SPEECH, {"input": "Hello", "voice": "en-us"})
            assert third.status == 503
            assert "1 requests wait already" in third.fault
            first.close()
            assert second.recv(12) == b"HTTP/1.1 200"
            _until(lambda: server.metric("voxbox:requests_running") == 0)
        finally:
            first.close()
            if second is not None:
                second.close()


def test_a_voice_process_that_dies_ends_one_request_alone() -> None:
    with serving(PROGRAM, "--model", "espeak-ng", "--parallel", "1") as server:
        first = _raw_post(
            server, b'{"input": "%b", "voice": "en-us", "response_format": "pcm"}' % (b"hello world. " * 300)
        )
        with first:
            _until(lambda: server.metric("voxbox:requests_running") == 1)
            (child,) = _children(server.process.pid)
            os.kill(child, signal.SIGKILL)
            while first.recv(1 << 16):
                pass
        _until(lambda: server.metric("voxbox:requests_running") == 0)
        assert spoken(server, response_format="pcm")
        assert child not in _children(server.process.pid)


def test_the_voice_process_has_no_key_and_ends_with_its_server() -> None:
    with serving(PROGRAM, "--model", "espeak-ng") as server:
        (child,) = _children(server.process.pid)
        assert KEY.encode() not in Path(f"/proc/{child}/environ").read_bytes()
        server.process.kill()
        server.process.wait(10)
        _until(lambda: not Path(f"/proc/{child}").exists() or _state(child) == "Z")


# --- transcription


def test_what_is_spoken_is_heard_and_silence_is_not(listener: EngineServer, speaker: EngineServer) -> None:
    for name in ("wav", "mp3", "flac", "opus", "aac"):
        answer = listener.send_form(
            TRANSCRIPTIONS, ("file", spoken(speaker, response_format=name)), model="m"
        )
        assert answer.status == 200, answer.body
        assert answer.json["text"] == HEARD
        assert answer.json["usage"] == {"type": "duration", "seconds": 4}
    nothing = listener.send_form(TRANSCRIPTIONS, ("file", silence(3)), model="m")
    assert nothing.json == {"text": "", "usage": {"type": "duration", "seconds": 3}}


def test_a_transcript_has_every_form(listener: EngineServer, sentence: bytes) -> None:
    def ask(**fields: Any) -> bytes:
        return listener.send_form(TRANSCRIPTIONS, ("file", sentence), model="m", **fields).body

    assert ask(response_format="text") == f"{HEARD}\n".encode()
    assert ask(response_format="srt") == f"1\n00:00:00,000 --> 00:00:02,000\n{HEARD}\n".encode()
    assert ask(response_format="vtt") == f"WEBVTT\n\n00:00:00.000 --> 00:00:02.000\n{HEARD}\n".encode()
    verbose = listener.send_form(TRANSCRIPTIONS, ("file", sentence), response_format="verbose_json").json
    assert (verbose["task"], verbose["language"], verbose["text"]) == ("transcribe", "en", HEARD)
    assert verbose["duration"] == pytest.approx(3.91, abs=0.2)
    (segment,) = verbose["segments"]
    assert (segment["id"], segment["start"], segment["end"], segment["text"]) == (0, 0.0, 2.0, f" {HEARD}")
    assert "words" not in verbose
    words = listener.send_form(
        TRANSCRIPTIONS,
        ("file", sentence),
        response_format="verbose_json",
        **{"timestamp_granularities[]": ["word"]},
    ).json
    assert [word["word"] for word in words["words"]] == HEARD.split()
    assert "segments" not in words
    starts = [word["start"] for word in words["words"]]
    assert starts == sorted(starts)


def test_a_transcript_comes_as_events(listener: EngineServer, sentence: bytes) -> None:
    answer = listener.send_form(TRANSCRIPTIONS, ("file", sentence), model="m", stream="true")
    assert answer.headers["content-type"] == "text/event-stream"
    *deltas, done = answer.events
    assert "".join(one["delta"] for one in deltas) == HEARD
    assert done["type"] == "transcript.text.done"
    assert done["text"] == HEARD


def test_a_language_is_found_and_translated(tmp_path: Path, speaker: EngineServer) -> None:
    folder = make_tiny_whisper(tmp_path, "Das hört ein kleines Modell.", translated=TRANSLATED)
    sound = spoken(speaker, "Guten Tag, wie geht es Ihnen?", voice="de", response_format="wav")
    with serving(PROGRAM, "--model", str(folder), "--beam-size", "1") as server:
        heard = server.send_form(TRANSCRIPTIONS, ("file", sound), response_format="verbose_json").json
        assert heard["language"] == "de"
        assert heard["text"].startswith("Das hört ein kleines Modell.")
        english = server.send_form(
            "/v1/audio/translations", ("file", sound), prompt="Tea.", hotwords="fox"
        ).json
        assert english["text"].startswith(TRANSLATED)


def test_a_sound_that_is_too_long_is_refused(tmp_path: Path) -> None:
    with serving(PROGRAM, "--model", str(make_tiny_whisper(tmp_path)), "--max-audio-seconds", "2") as server:
        answer = server.send_form(TRANSCRIPTIONS, ("file", silence(3)), model="m")
    assert answer.status == 400
    assert answer.fault == "The sound is longer than 2 s, the most that is taken here"


@pytest.mark.parametrize(
    ("files", "fields", "sentence"),
    [
        ([], {"model": "m"}, "'file' is missing"),
        ([("file", b"a"), ("file", b"b")], {}, "'file' is there more than once"),
        ([("file", b"")], {}, "cannot be read as sound"),
        ([("file", b"no sound at all" * 100)], {}, "cannot be read as sound"),
        ([("file", silence(1))], {"language": "xx"}, "'language' is none that this model knows"),
        ([("file", silence(1))], {"temperature": "7"}, "'temperature' must be a number from 0 to 1"),
        ([("file", silence(1))], {"response_format": "xml"}, "'response_format' must be one of json"),
        ([("file", silence(1))], {"response_format": "srt", "stream": "true"}, "'stream' goes with"),
        ([("file", silence(1))], {"timestamp_granularities[]": ["word"]}, "goes with the response_format"),
        ([("file", silence(1))], {"prompt": "a" * 5000}, "'prompt' has 5000 characters"),
        ([("file", silence(1))], {f"field{n}": "" for n in range(200)}, "more than 100 parts"),
    ],
)
def test_a_wrong_form_is_refused_in_a_sentence(
    listener: EngineServer, files: list[tuple[str, bytes]], fields: dict[str, Any], sentence: str
) -> None:
    answer = listener.send_form(TRANSCRIPTIONS, *files, **fields)
    assert answer.status == 400, answer.body
    assert sentence in answer.fault


def test_what_is_no_form_or_too_long_a_field_is_refused(listener: EngineServer) -> None:
    assert "needs a form" in listener.post(TRANSCRIPTIONS, {"model": "m"}).fault
    cut = form([("file", silence(1))], {})[:-20]
    kind = f"multipart/form-data; boundary={BOUNDARY}"
    assert "cannot be read" in listener.ask(TRANSCRIPTIONS, cut, kind).fault
    assert listener.send_form(TRANSCRIPTIONS, prompt="a" * 300_000).status == 413


def test_no_file_is_opened_for_an_upload(listener: EngineServer, sentence: bytes, tmp_path: Path) -> None:
    """Playlists and lists of files would have FFmpeg open what they name."""
    other = tmp_path / "other.wav"
    other.write_bytes(sentence)
    lists = (
        f"#EXTM3U\n#EXT-X-TARGETDURATION:10\n#EXTINF:9,\nfile://{other}\n#EXT-X-ENDLIST\n",
        f"ffconcat version 1.0\nfile '{other}'\n",
        f"[playlist]\nFile1={other}\n",
    )
    for text in lists:
        answer = listener.send_form(TRANSCRIPTIONS, ("file", text.encode()), model="m")
        assert answer.status == 400, text


def test_an_upload_is_kept_where_nobody_else_can_read_it(tmp_path: Path) -> None:
    """Half of a form has come: its file has no name, only its owner may open it, and it is gone with the client."""
    folder, kept = make_tiny_whisper(tmp_path / "whisper"), tmp_path / "kept"
    kept.mkdir()
    with serving(PROGRAM, "--model", str(folder), TMPDIR=str(kept)) as server:
        whole = form([("file", silence(60))], {})
        sent = whole[: len(whole) // 2]
        with _raw_post(
            server, whole, TRANSCRIPTIONS, f"multipart/form-data; boundary={BOUNDARY}", sent
        ) as half:
            _until(lambda: _open_files(server.process.pid, kept))
            assert list(kept.iterdir()) == []
            (opened,) = _open_files(server.process.pid, kept)
            assert opened.stat().st_mode & 0o777 == 0o600
            half.close()
        _until(lambda: not _open_files(server.process.pid, kept))


# --- the program


def test_it_finishes_what_runs_before_it_ends() -> None:
    with serving(PROGRAM, "--model", "espeak-ng") as server:
        body = b'{"input": "%b", "voice": "en-us", "response_format": "pcm"}' % (b"hello world. " * 300)
        with _raw_post(server, body) as running:
            _until(lambda: server.metric("voxbox:requests_running") == 1)
            server.process.terminate()
            received = 0
            while piece := running.recv(1 << 16):
                received += len(piece)
        assert server.process.wait(20) == 0
        assert received > 4_000_000


@pytest.mark.parametrize(
    ("arguments", "code", "sentence"),
    [
        (["--model", "/nowhere/at/all"], 1, "There is no folder /nowhere/at/all"),
        (["--model", str(ROOT / "docs")], 1, "holds no speech model that is known here"),
        (["--model", "espeak-ng", "--voice", "nobody"], 1, "--voice nobody: there is no such voice"),
        (["--model", "espeak-ng", "--device", "tpu"], 2, "--device: must be cpu, cuda or cuda:INDEX"),
        (["--model", "espeak-ng", "--parallel", "0"], 2, "must be at least 1"),
        (["--colour", "red"], 2, "--model"),
    ],
)
def test_it_says_why_it_does_not_start(arguments: list[str], code: int, sentence: str) -> None:
    ended = subprocess.run(
        [sys.executable, "-m", PROGRAM, *arguments],
        cwd=ROOT,
        env=environment(),
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert (ended.returncode, sentence in ended.stderr) == (code, True), ended.stderr


def test_a_broken_model_is_told_and_not_a_traceback(tmp_path: Path) -> None:
    folder = make_tiny_whisper(tmp_path)
    (folder / "model.bin").write_bytes(b"\0" * 100)
    ended = subprocess.run(
        [sys.executable, "-m", PROGRAM, "--model", str(folder)],
        cwd=ROOT,
        env=environment(),
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert ended.returncode == 1
    assert "Whisper cannot be loaded" in ended.stderr
    assert "Traceback" not in ended.stderr


def _raw_post(
    server: EngineServer,
    body: bytes,
    path: str = SPEECH,
    kind: str = "application/json",
    sent: bytes | None = None,
) -> socket.socket:
    """Send a request, or the beginning of its body, and read nothing of the answer."""
    host, _, port = server.url.removeprefix("http://").rpartition(":")
    connection = socket.create_connection((host, int(port)), timeout=60)
    head = (
        f"POST {path} HTTP/1.1\r\nHost: {host}\r\nAuthorization: Bearer {KEY}\r\nContent-Type: {kind}\r\n"
        f"Content-Length: {len(body)}\r\nConnection: close\r\n\r\n"
    )
    connection.sendall(head.encode() + (body if sent is None else sent))
    return connection


def _until(holds: Any, within: float = 30.0) -> None:
    deadline = time.monotonic() + within
    while not holds():
        assert time.monotonic() < deadline, "it did not come to that"
        time.sleep(0.02)


def _children(pid: int) -> list[int]:
    listed = (one.read_text() for one in Path(f"/proc/{pid}/task").glob("*/children"))
    return [int(child) for children in listed for child in children.split()]


def _state(pid: int) -> str:
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]


def _open_files(pid: int, folder: Path) -> list[Path]:
    found = []
    for one in Path(f"/proc/{pid}/fd").iterdir():
        try:
            if str(one.readlink()).startswith(str(folder)):
                found.append(one)
        except FileNotFoundError:
            continue
    return found
