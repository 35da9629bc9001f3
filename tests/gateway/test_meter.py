"""Streams go by byte for byte, but for the one event that only we asked for."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gpustack.gateway.choices import RequestedChoices
from gpustack.gateway.meter import BodyMeter, EventStreamMeter
from gpustack.gateway.speed import Stopwatch, with_engine_speed
from gpustack.gateway.sse_usage import ChoiceUsageReader
from gpustack.gateway.token_usage import TokenUsage

SAID = {"prompt_tokens": 3, "completion_tokens": 5, "total_tokens": 8}
ALONE = json.dumps({"id": "x", "choices": [], "usage": SAID, "timings": {"n": 1.5}}).encode()
WORD = json.dumps({"id": "x", "choices": [{"delta": {"content": "hi"}}]}).encode()
WITH_WORD = json.dumps({"id": "x", "choices": [{"delta": {"content": "hi"}}], "usage": SAID}).encode()
NULL = json.dumps({"choices": [{"delta": {"content": '"usage"'}}], "usage": None}).encode()
EMPTY = json.dumps({"choices": [], "prompt_filter_results": []}).encode()
ERROR = json.dumps({"error": {"message": "no"}, "usage": SAID}).encode()


def _passed(meter: EventStreamMeter, data: bytes, *cuts: int) -> bytes:
    out, start = b"", 0
    for cut in [*sorted(cuts), len(data)]:
        out += meter.take(data[start:cut])
        start = cut
    return out + meter.rest()


kept_events = st.sampled_from(
    [
        b"data: " + WORD,
        b"data:" + WORD,
        b"data: " + WITH_WORD,
        b"data: " + NULL,
        b"data: " + EMPTY,
        b"data: " + ERROR,
        b"data: [DONE]",
        b": keep-alive",
        b"event: ping",
        b"id: 7\ndata: " + WORD,
        b'event: usage\ndata: {"half": \ndata: "usage"}',
        b'data: not json "usage" {',
        b'data: {"usage": {"prompt_tokens": 1}, "choices": [{}]}',
        b"",
        b'data: \xff\xfe "usage"',
        'data: {"choices": [{"delta": "ü ✓"}], "usage": null}'.encode(),
    ]
)
hidden_events = st.sampled_from(
    [
        b"data: " + ALONE,
        b"data:" + ALONE + b"  ",
        b"event: message\ndata: " + ALONE,
        b"data: " + json.dumps({"usage": SAID}).encode(),
        b"\n".join(
            b"data: " + line for line in json.dumps(json.loads(ALONE), indent=1).encode().split(b"\n")
        ),
    ]
)


@given(st.data())
def test_hiding_changes_nothing_but_what_is_hidden(data: st.DataObject) -> None:
    """Wherever the stream is cut, with any line ends, any number of usage events and what not between them."""
    end = data.draw(st.sampled_from([b"\n", b"\r\n", b"\r"]))
    parts = data.draw(st.lists(st.tuples(st.booleans(), kept_events, hidden_events), max_size=8))
    stream = kept = b""
    for hides, other, alone in parts:
        event = (alone if hides else other).replace(b"\n", end) + end + end
        stream += event
        kept += b"" if hides else event
    cuts = data.draw(st.lists(st.integers(0, len(stream)), max_size=30))
    assert _passed(EventStreamMeter(hide=True), stream, *cuts) == kept
    assert _passed(EventStreamMeter(hide=False), stream, *cuts) == stream


@pytest.mark.attack("parser")
@given(st.binary(max_size=200), st.lists(st.integers(0, 200), max_size=10))
def test_bytes_that_are_no_events_pass_as_they_are(stream: bytes, cuts: list[int]) -> None:
    assert _passed(EventStreamMeter(hide=True), stream, *cuts) == stream


def test_every_cut_of_a_whole_stream_gives_the_same() -> None:
    stream = b"data: %b\r\n\r\ndata: %b\n\ndata: %b\r\n\r\ndata: [DONE]\n\n" % (WORD, WITH_WORD, ALONE)
    kept = stream.replace(b"data: " + ALONE + b"\r\n\r\n", b"")
    for cut in range(len(stream)):
        meter = EventStreamMeter(hide=True)
        assert _passed(meter, stream, cut) == kept
        assert meter.usage() == TokenUsage(3, 5, True)
    meter = EventStreamMeter(hide=True)
    assert _passed(meter, stream, *range(len(stream))) == kept


@pytest.mark.parametrize("end", [b"\n", b"\r\n"])
def test_an_event_goes_on_as_soon_as_it_is_whole(end: bytes) -> None:
    meter = EventStreamMeter(hide=True)
    event = b"data: " + WORD + end + end
    assert meter.take(event + event[:9]) == event
    assert meter.take(event[9:]) == event


def test_usage_glued_to_the_end_mark_is_still_hidden() -> None:
    """Some engines forget the empty line between events; clients that read line by line do not mind."""
    meter = EventStreamMeter(hide=True)
    assert _passed(meter, b"data: %b\ndata: [DONE]\n\n" % ALONE) == b"data: [DONE]\n\n"
    assert meter.usage() == TokenUsage(3, 5, True)


def test_usage_without_an_end_is_hidden_when_the_stream_ends() -> None:
    assert (
        _passed(EventStreamMeter(hide=True), b"data: %b\n\ndata: %b\n" % (WORD, ALONE))
        == b"data: %b\n\n" % WORD
    )


def test_usage_in_every_event_is_passed_on_and_the_last_counts() -> None:
    def event(tokens: int) -> bytes:
        said: dict[str, Any] = {"choices": [{"delta": {}}], "usage": {**SAID, "completion_tokens": tokens}}
        return b"data: " + json.dumps(said).encode() + b"\n\n"

    stream = b"".join(map(event, range(10)))
    meter = EventStreamMeter(hide=True)
    assert _passed(meter, stream, *range(0, len(stream), 11)) == stream
    assert meter.usage() == TokenUsage(3, 9, True)


def test_without_word_of_the_engine_events_are_counted_and_marked_as_not_measured() -> None:
    meter = EventStreamMeter(hide=True)
    assert meter.usage() is None
    meter.take(b"data: %b\n\n: data: no\n\ndata: %b\n" % (WORD, WORD))
    assert meter.usage() == TokenUsage(0, 1, False)
    meter.take(b"\nid: 1\ndata: data: x\n\n")
    assert meter.usage() == TokenUsage(0, 3, False)


@pytest.mark.attack("engine")
def test_a_huge_event_is_not_kept() -> None:
    meter = EventStreamMeter(hide=True)
    start = b"data: " + b"x" * (1 << 20)
    assert meter.take(start) == start
    assert meter.gap == b"\n\n"
    assert meter.take(b"xx") == b""
    assert meter.take(b"\n\ndata: y") == b"xx\n\n"
    assert meter.gap == b""
    assert meter.rest() == b"data: y"


def test_a_plain_answer_passes_as_it_is() -> None:
    meter = BodyMeter()
    piece = b'{"choices": [], "usage": {"prompt_'
    assert meter.take(piece) is piece
    assert meter.usage() is None
    assert meter.take(b'tokens": 3, "completion_tokens": 5}}') + meter.rest() != b""
    assert meter.usage() == TokenUsage(3, 5, True)


# --- what is mended


def _event(**fields: Any) -> bytes:
    return b"data: " + json.dumps(fields, separators=(",", ":")).encode() + b"\n\n"


FIRST = b'data: {"choices":[{"index":0,"delta":{"role":"assistant","content":%b}}],"x":1.50}\n\n'
END = _event(choices=[{"finish_reason": "stop", "index": 0, "delta": {}}], system_fingerprint="b7-abc")
TOLD = _event(choices=[], usage=SAID, timings={"predicted_n": 5, "predicted_ms": 0.685})
DONE = b"data: [DONE]\n\n"


@pytest.mark.parametrize("null", [b"null", b" null"])
@pytest.mark.parametrize("hide", [True, False])
def test_a_delta_without_content_has_an_empty_text(null: bytes, hide: bool) -> None:
    """Clients that put one delta after the other would show the word."""
    stream = FIRST % null + b"data: %b\n\n" % WORD + DONE
    for cut in range(len(stream)):
        first, _, rest = _passed(EventStreamMeter(hide), stream, cut).partition(b"\n\n")
        assert json.loads(first[6:]) == json.loads((FIRST % b'""')[6:])
        assert rest == b"data: %b\n\n" % WORD + DONE


@pytest.mark.parametrize(
    "event",
    [
        _event(choices=[{"delta": {"content": "x"}, "logprobs": {"content": None}}]),
        _event(choices=[{"delta": {"content": 'a "content":null b'}}]),
        _event(choices=[{"message": {"content": None}}]),
        _event(choices=[None, 3, {"delta": None}], x={"content": None}),
        _event(content=None),
        b'data: {"content":null\n\n',
    ],
)
def test_null_is_left_where_it_is_no_text_of_a_delta(event: bytes) -> None:
    assert _passed(EventStreamMeter(hide=True), event) == event


@pytest.mark.parametrize("end", [b"\n\n", b"\r\n\r\n"])
def test_an_event_that_says_null_is_left_out_where_several_answers_are_asked_for(end: bytes) -> None:
    nothing, kept = b"data: null" + end, _event(choices=[{"text": "data: null"}])
    stream = nothing + kept + nothing + DONE
    for cut in range(len(stream)):
        meter = EventStreamMeter(hide=True, reader=ChoiceUsageReader(RequestedChoices(1, 2)))
        assert _passed(meter, stream, cut) == kept + DONE
    assert _passed(EventStreamMeter(hide=True), stream) == stream


def test_timings_stand_in_the_event_that_ends_the_answer_wherever_the_stream_is_cut() -> None:
    word = b"data: %b\n\n" % WORD
    stream = word + END + TOLD + END + TOLD + DONE
    wanted = {"predicted_n": 5, "predicted_ms": 0.685}
    for cut in range(len(stream)):
        passed = _passed(EventStreamMeter(hide=True), stream, cut)
        first, one, two, done = passed.split(b"\n\n")[:4]
        assert first + b"\n\n" == word
        assert json.loads(one[6:]) == json.loads(two[6:]) == {**json.loads(END[6:]), "timings": wanted}
        assert done + b"\n\n" == DONE
        assert _passed(EventStreamMeter(hide=False), stream, cut) == stream


def test_an_end_whose_timings_do_not_come_goes_on_with_what_comes_instead() -> None:
    meter = EventStreamMeter(hide=True)
    assert meter.take(END) == b""
    assert meter.gap == END  # an error that we put into the stream comes after it
    assert meter.take(DONE) == END + DONE
    assert meter.take(END) + meter.rest() == END


def test_the_end_of_an_answer_of_another_engine_goes_on_at_once() -> None:
    end = END.replace(b"b7-abc", b"fp_1")
    assert EventStreamMeter(hide=True).take(end) == end


def test_what_is_mended_in_completions_is_left_alone_elsewhere() -> None:
    stream = FIRST % b"null" + b"data: null\n\n" + END + TOLD
    assert _passed(EventStreamMeter(hide=False, edits=False), stream) == stream


def test_usage_that_is_asked_for_says_how_fast_the_answer_was() -> None:
    now = iter([10.5, 12.5])
    meter = EventStreamMeter(hide=False, stopwatch=Stopwatch(10.0, lambda: next(now)))
    assert meter.take(b"data: %b\n\n" % WORD) == b"data: %b\n\n" % WORD
    told = json.loads(meter.take(TOLD)[6:])
    speed = {"time_to_first_token_ms": 500, "time_per_output_token_ms": 400, "tokens_per_second": 2.5}
    assert told == {**json.loads(TOLD[6:]), "usage": {**SAID, **speed}}
    assert meter.usage() == TokenUsage(3, 5, True)


@pytest.mark.parametrize(
    "event",
    [
        _event(choices=[], usage={**SAID, "tokens_per_second": 7}),
        _event(choices=[{"finish_reason": None}], usage=SAID),
        _event(choices=[], usage={}),
        _event(choices=[], usage=None),
        _event(usage=SAID),
        b'data: {"usage": {"\n\n',
    ],
)
def test_no_speed_is_told_twice_or_before_the_end(event: bytes) -> None:
    meter = EventStreamMeter(hide=False, stopwatch=Stopwatch(0.0, lambda: 1.0))
    assert _passed(meter, event) == event


def test_a_plain_answer_says_how_fast_it_was_as_its_engine_measured() -> None:
    timings = {"prompt_ms": 2.5, "predicted_per_token_ms": 0.5}
    said = {"choices": [{"message": {"tool": {"usage": {"a": 1}}}}], "usage": SAID, "timings": timings}
    told = json.loads(with_engine_speed(json.dumps(said).encode()))
    speed = {"time_to_first_token_ms": 2.5, "time_per_output_token_ms": 0.5, "tokens_per_second": 2000}
    assert told == {**said, "usage": {**SAID, **speed}}
    for other in (
        b"{}",
        b'{"usage":{"a":1},"timings":{"prompt_ms":"x"}}',
        b'{"usage":{"a":1},"timings":{x}}',
    ):
        assert with_engine_speed(other) == other


def test_events_of_sound_and_images_are_no_tokens() -> None:
    """What an engine tells in tokens counts all the same; seconds are none."""
    spoken = b'data: {"type": "speech.audio.delta", "audio": "AAAA"}\n\n' * 3
    heard = b'data: {"type": "transcript.text.done", "usage": {"type": "duration", "seconds": 4}}\n\n'
    meter = EventStreamMeter(False, edits=False, counts=False)
    assert _passed(meter, spoken + heard) == spoken + heard
    assert meter.usage() is None
    told = EventStreamMeter(False, edits=False, counts=False)
    _passed(told, b'data: {"usage": {"input_tokens": 7, "output_tokens": 2, "total_tokens": 9}}\n\n')
    assert told.usage() == TokenUsage(7, 2, True)
