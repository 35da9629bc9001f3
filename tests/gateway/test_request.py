"""What a body asks for, and what is sent on in its place."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gpustack.errors import BadRequest
from gpustack.gateway.request import LARGE, read_inference_request


def _large(text: bytes) -> bytes:
    """The same body, longer than what is parsed as a whole."""
    return text[:-1] + b', "padding": "' + b"x" * LARGE + b'"}'


@pytest.mark.parametrize("make", [bytes, _large])
def test_a_body_that_is_no_stream_goes_on_untouched(make: Any) -> None:
    body = make(b' {"model": "m", "temperature": 1.10, "seed": 123456789012345678901234567890}')
    ask = read_inference_request(body)
    assert (ask.model, ask.stream, ask.hide_usage) == ("m", False, False)
    assert ask.body is body


@pytest.mark.parametrize("make", [bytes, _large])
def test_a_stream_is_made_to_say_its_usage_by_one_splice(make: Any) -> None:
    body = make(b'\n{"model": "m", "stream": true, "seed": 123456789012345678901234567890, "x": 1.10}')
    ask = read_inference_request(body)
    assert ask.stream
    assert ask.hide_usage
    assert ask.body == b'{"stream_options":{"include_usage":true},' + body.lstrip()[1:]


@pytest.mark.parametrize("make", [bytes, _large])
@pytest.mark.parametrize(
    ("options", "sent"),
    [
        (b"null", {"include_usage": True}),
        (b"{}", {"include_usage": True}),
        (b'{"include_usage": false}', {"include_usage": True}),
        (b'{"include_usage": null, "more": [1]}', {"include_usage": True, "more": [1]}),
    ],
)
def test_options_without_usage_are_replaced_where_they_stand(make: Any, options: bytes, sent: object) -> None:
    before, after = b'{"model": "m", "stream_options" : ', b' , "stream": true, "x": 1.10}'
    body = make(before + options + after)
    ask = read_inference_request(body)
    assert ask.hide_usage
    assert ask.body.startswith(before)
    assert ask.body.endswith(body[len(before) + len(options) :])
    assert json.loads(ask.body)["stream_options"] == sent


@pytest.mark.parametrize("make", [bytes, _large])
def test_usage_that_a_client_asked_for_is_not_hidden(make: Any) -> None:
    body = make(b'{"model": "m", "stream": true, "stream_options": {"include_usage": true}}')
    ask = read_inference_request(body)
    assert not ask.hide_usage
    assert ask.body is body


@pytest.mark.attack("smuggling")
@pytest.mark.parametrize("make", [bytes, _large])
@pytest.mark.parametrize(
    ("body", "said"),
    [
        (b'{"model": "a", "model": "b"}', "'model' is given twice"),
        (rb'{"model": "a", "\u006dodel": "b"}', "'model' is given twice"),
        (rb'{"mode\u006C": "a", "messages": [], "model": "b"}', "'model' is given twice"),
        (b'{"model": "a", "stream": false, "stream": true}', "'stream' is given twice"),
        (
            b'{"model": "a", "stream": true, "stream_options": null, "stream_options": {}}',
            "'stream_options' is given twice",
        ),
        (b"{}", "Missing 'model' field"),
        (b'{"model": ""}', "Missing 'model' field"),
        (b'{"model": null}', "Missing 'model' field"),
        (b'{"input": {"model": "m"}}', "Missing 'model' field"),
        (b'{"model": 7}', "'model' must be a string"),
        (b'{"model": ["m"]}', "'model' must be a string"),
        (b'{"model": "%b"}' % (b"m" * 1025), "'model' is longer than 1024 characters"),
        (b'{"model": "m", "stream": "true"}', "'stream' must be true or false"),
        (b'{"model": "m", "stream": 1}', "'stream' must be true or false"),
        (b'{"model": "m", "stream": true, "stream_options": []}', "'stream_options' must be an object"),
        (
            b'{"model": "m", "stream": true, "stream_options": {"include_usage": 1}}',
            "'stream_options.include_usage' must be true or false",
        ),
        (
            b'{"model": "m", "stream": true, "stream_options": {"x": ' + b"[" * 300 + b"]" * 300 + b"}}",
            "'stream_options' cannot be sent on",
        ),
    ],
)
def test_what_two_programs_could_read_differently_is_refused(make: Any, body: bytes, said: str) -> None:
    if body == b"{}" and make is _large:
        body = b'{"x": 1}'
    with pytest.raises(BadRequest) as caught:
        read_inference_request(make(body))
    assert said in str(caught.value)


@pytest.mark.attack("parser")
@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"   ",
        b"null",
        b"[]",
        b'"model"',
        b'{"model": "m"',
        b'{"model": "m"} x',
        b'{"model": "m"}{"model": "n"}',
        b'{"model": "m",}',
        b"{'model': 'm'}",
        b'\xef\xbb\xbf{"model": "m"}',
        '{"model": "m"}'.encode("utf-16"),
        b'{"model": "\xff"}',
        rb'{"model": "\ud800"}',
        b'{"model": "m", "x": NaN}',
        b'{"model": "m", "x": 01}',
        b'{"model": "m", "x": ' + b"[" * 5000 + b"]" * 5000 + b"}",
        b"[" * 900_000,
        b'{"model": "m", "x": "a\nb"}',
    ],
)
def test_what_is_not_json_is_refused(body: bytes) -> None:
    with pytest.raises(BadRequest, match="We could not parse the JSON body of your request"):
        read_inference_request(body)


@pytest.mark.attack("smuggling")
def test_a_large_body_has_no_second_reading_in_utf_16() -> None:
    """What is no UTF-8 is not parsed as a whole there, and engines find out by themselves how it is encoded."""
    seen_as_utf_8 = b'","model":"mine","z":"'
    text = '{"k' + seen_as_utf_8.decode("utf-16-le") + '":1,"model":"other","p":"' + "x" * LARGE + '"}'
    body = text.encode("utf-16-le")
    assert (json.loads(body)["model"], seen_as_utf_8 in body) == ("other", True)
    with pytest.raises(BadRequest, match="not UTF-8"):
        read_inference_request(body)


def test_the_same_words_further_in_are_nothing_to_us() -> None:
    body = b"""{"model": "m", "tools": [{"properties": {"model": {"type": "string"}, "stream": {}}}],
        "metadata": {"stream_options": "x", "model": "n"}, "stream": false,
        "messages": [{"role": "model", "content": "\\"model\\": \\"n\\", \\u0041"}]}"""
    ask = read_inference_request(body)
    assert (ask.model, ask.stream) == ("m", False)


def test_an_embedding_has_no_stream() -> None:
    body = b'{"model": "m", "stream": true, "input": "x"}'
    ask = read_inference_request(body, completions=False)
    assert not ask.stream
    assert ask.body is body


def test_stream_options_without_a_stream_are_the_engines_to_refuse() -> None:
    body = b'{"model": "m", "stream_options": {"include_usage": true}}'
    assert read_inference_request(body).body is body


json_values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**53), 2**53)
    | st.text(st.characters(codec="ascii"), max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(["model", "a", "b"]), inner),
    max_leaves=6,
)


@pytest.mark.attack("smuggling")
@given(
    st.dictionaries(st.sampled_from(["a", "b", "stream_option", "messages"]), json_values),
    st.booleans() | st.none(),
    st.sampled_from([None, {}, {"include_usage": False}, {"include_usage": True}, "absent"]),
    st.randoms(),
)
def test_what_an_engine_reads_is_what_the_client_wrote_but_for_the_usage(
    others: dict[str, Any], stream: bool | None, options: Any, rng: Any
) -> None:
    fields = {**others, "model": "m", "stream": stream}
    if options != "absent":
        fields["stream_options"] = options
    items = list(fields.items())
    rng.shuffle(items)
    ask = read_inference_request(json.dumps(dict(items)).encode())
    expected = dict(items)
    if stream:
        expected["stream_options"] = {"include_usage": True}
    assert json.loads(ask.body) == expected
    assert ask.hide_usage == (bool(stream) and options != {"include_usage": True})
