"""A request with several answers is charged no less than an engine made for it, whichever way the engine counts."""

from __future__ import annotations

import json
from typing import Any

import pytest

from gpustack.errors import BadRequest, Unavailable
from gpustack.gateway.choices import ChoicesMeter, RequestedChoices
from gpustack.gateway.meter import EventStreamMeter
from gpustack.gateway.request import LARGE, read_inference_request
from gpustack.gateway.sse_usage import ChoiceUsageReader, MessageUsageReader
from gpustack.gateway.token_bound import TokenBound
from gpustack.gateway.token_usage import TokenUsage

BOUND = TokenBound(prompt=300, total=700, answer=100)
SAID = {"prompt_tokens": 3, "completion_tokens": 5, "total_tokens": 8}


def room(size: int) -> None:
    """There is always some."""


def chosen(text: str, reason: str = "stop", **more: Any) -> dict[str, Any]:
    return {"message": {"role": "assistant", "content": text}, "finish_reason": reason, **more}


def charged(
    several: RequestedChoices, *choices: Any, bound: TokenBound = BOUND, cut: int = 0, **more: Any
) -> TokenUsage | None:
    document = {"choices": choices, "usage": SAID, **more}
    body = json.dumps(document).encode()
    meter = ChoicesMeter(several, bound, room)
    assert meter.take(body[:40]) + meter.take(body[40 : len(body) - cut]) == body[: len(body) - cut]
    return meter.usage()


def streamed(several: RequestedChoices, *documents: Any) -> TokenUsage | None:
    meter = EventStreamMeter(hide=False, reader=ChoiceUsageReader(several))
    for document in documents:
        meter.take(b"data: " + json.dumps(document).encode() + b"\n\n")
    return meter.usage()


# --- what is asked for


@pytest.mark.parametrize("padding", [0, LARGE])
@pytest.mark.parametrize(
    ("more", "several"),
    [
        ({}, None),
        ({"n": 1, "best_of": 1}, None),
        ({"n": None, "prompt": "a"}, None),
        ({"prompt": [1, 2, 3]}, None),
        ({"prompt": ["a"]}, None),
        ({"n": 4}, (4, 1)),
        ({"n_cmpl": 4}, (4, 1)),
        ({"n": 2, "best_of": 4}, (2, 1)),
        ({"best_of": 4}, (1, 1)),
        ({"prompt": ["a", "b", "c"]}, (1, 3)),
        ({"prompt": [[1, 2], [3]], "n": 2}, (2, 2)),
    ],
)
def test_more_answers_than_one_are_noticed(more: dict[str, Any], several: Any, padding: int) -> None:
    found = read_inference_request(json.dumps({"model": "m", **more, "x": "y" * padding}).encode()).choices
    assert several == (None if found is None else (found.times, found.prompts))


@pytest.mark.attack("limits")
@pytest.mark.parametrize("name", ["n", "n_cmpl", "best_of"])
@pytest.mark.parametrize("value", ["4", 4.0, True, [4]])
def test_a_number_of_answers_that_engines_might_read_differently_is_refused(name: str, value: object) -> None:
    with pytest.raises(BadRequest, match=f"'{name}' must be a whole number"):
        read_inference_request(json.dumps({"model": "m", name: value}).encode())


@pytest.mark.attack("limits")
def test_a_number_of_answers_that_is_given_twice_is_refused() -> None:
    with pytest.raises(BadRequest, match="'n' is given twice"):
        read_inference_request(b'{"model": "m", "n": 4, "n": 1}')
    with pytest.raises(BadRequest, match="'n' is given twice"):
        read_inference_request(b'{"model": "m", "n": 4, "\\u006e": 1}')


@pytest.mark.attack("limits")
def test_an_api_with_one_answer_takes_no_number_of_them() -> None:
    """llama.cpp turns such a request into one of a chat, and gives several answers in a form that nobody knows."""
    with pytest.raises(BadRequest, match="'n' must be 1"):
        read_inference_request(b'{"model": "m", "n": 4}', completions=False, single=True)


# --- plain answers


def test_an_engine_that_sums_is_believed() -> None:
    assert charged(RequestedChoices(4, 1), *[chosen("x")] * 4) == TokenUsage(3, 5, True)


def test_of_an_engine_that_counts_one_answer_each_other_is_counted_by_its_text() -> None:
    """``timings`` is the mark of llama.cpp."""
    found = charged(RequestedChoices(2, 1), chosen("x"), chosen("y" * 20), timings={})
    assert found == TokenUsage(3, 5 + 20 + 8, True)
    assert charged(
        RequestedChoices(3, 1), chosen("x"), chosen("y" * 500), chosen("z" * 500), timings={}
    ) == TokenUsage(3, 5 + 200, True)


def test_an_answer_that_came_to_its_limit_has_as_many_tokens() -> None:
    found = charged(RequestedChoices(2, 1), chosen("x"), chosen("", "length"), timings={})
    assert found == TokenUsage(3, 105, True)


def test_the_text_that_ends_an_answer_was_made_too_though_it_is_not_in_it() -> None:
    """llama.cpp takes it out of the text, and its tokens out of those told one by one."""
    asked = RequestedChoices(2, 1, stop=60)
    assert charged(asked, chosen("x"), chosen(""), timings={}) == TokenUsage(3, 5 + 8 + 60, True)
    assert charged(asked, chosen("x"), chosen("y" * 99), timings={}) == TokenUsage(3, 5 + 100, True)
    told = {"content": [{"token": "a"}] * 3}
    assert charged(asked, chosen("x"), chosen("aaa", logprobs=told), timings={}) == TokenUsage(
        3, 5 + 4 + 60, True
    )
    body = {"model": "m", "messages": [], "n": 2, "stop": ["end", "the end é"]}
    several = read_inference_request(json.dumps(body).encode()).choices
    assert several is not None and several.stop == 10


def test_tokens_that_are_told_one_by_one_are_counted() -> None:
    logprobs = {"content": [{"token": "a"}] * 7}
    found = charged(RequestedChoices(2, 1), chosen("x"), chosen("y" * 90, logprobs=logprobs), timings={})
    assert found == TokenUsage(3, 5 + 7 + 1, True)


def test_reasoning_and_calls_of_tools_count_as_text() -> None:
    message = {"role": "assistant", "content": None, "reasoning_content": "r" * 30, "tool_calls": ["c" * 10]}
    other = {"message": message, "finish_reason": "tool_calls"}
    found = charged(RequestedChoices(2, 1), chosen("x"), other, timings={})
    assert found is not None
    assert found.completion >= 5 + 40


@pytest.mark.attack("limits")
def test_who_steers_the_tokens_cannot_hide_them() -> None:
    """A bias may make a model say nothing but tokens that leave no text."""
    ask = read_inference_request(b'{"model": "m", "n": 2, "logit_bias": {"7": 100}}')
    assert ask.choices is not None
    assert charged(ask.choices, chosen("x"), chosen(""), timings={}) == TokenUsage(3, 105, True)


def test_fewer_tokens_than_answers_are_not_believed() -> None:
    """Of an engine without a mark that counts one answer all the same."""
    found = charged(RequestedChoices(9, 1), *[chosen("abc")] * 9)
    assert found == TokenUsage(3, 5 + 8 * (3 + 8), True)


def test_of_several_prompts_what_was_reserved_counts() -> None:
    assert charged(RequestedChoices(1, 3), *[{"text": "x"}] * 3, timings={}) == TokenUsage(
        300, 5 + 2 * 9, True
    )
    assert charged(RequestedChoices(1, 3), *[{"text": "x"}] * 3) == TokenUsage(3, 5, True)


def test_answers_that_are_not_shown_count_as_long_as_they_may_be() -> None:
    assert charged(RequestedChoices(1, 1, best_of=4), chosen("x")) == TokenUsage(3, 5 + 3 * 100, True)
    # llama.cpp makes none.
    assert charged(RequestedChoices(1, 1, best_of=4), chosen("x"), timings={}) == TokenUsage(3, 5, True)


def test_an_answer_that_is_not_whole_counts_as_reserved() -> None:
    assert charged(RequestedChoices(4, 1), chosen("x"), timings={}, cut=1) == TokenUsage(300, 400, True)
    meter = ChoicesMeter(RequestedChoices(2, 1), BOUND, room)
    meter.take(b'{"usage": {"prompt_tokens": 3, "completion_tokens": 5}, "choices": ["')
    for _ in range(5):
        meter.take(b"x" * (1 << 20))
    assert meter.usage() == TokenUsage(300, 200, True)


@pytest.mark.attack("flood")
def test_an_answer_for_which_there_is_no_room_goes_on_and_counts_as_reserved() -> None:
    def full(size: int) -> None:
        raise Unavailable("Too many large requests are under way")

    meter = ChoicesMeter(RequestedChoices(2, 1), BOUND, full)
    body = json.dumps({"choices": [chosen("x"), chosen("y")], "usage": SAID, "timings": {}}).encode()
    assert meter.take(body[:90]) + meter.take(body[90:]) == body
    assert meter.usage() == TokenUsage(300, 200, True)


# --- streams


def test_the_usage_of_each_answer_in_a_stream_is_summed() -> None:
    """As llama.cpp tells it for a chat: each beside ``timings``, the prompt anew with each answer."""
    alone = {"choices": [], "usage": SAID, "timings": {}}
    assert streamed(RequestedChoices(4, 1), *[alone] * 4) == TokenUsage(3, 20, True)


def test_the_usage_of_each_prompt_in_a_stream_is_summed() -> None:
    def last(index: int, prompt: int) -> dict[str, Any]:
        return {
            "choices": [{"index": index, "finish_reason": "stop"}],
            "usage": {**SAID, "prompt_tokens": prompt},
        }

    assert streamed(RequestedChoices(1, 2), last(0, 3), last(1, 11)) == TokenUsage(14, 10, True)
    assert streamed(RequestedChoices(2, 2), last(0, 3), last(1, 3), last(2, 11), last(3, 11)) == TokenUsage(
        14, 20, True
    )


def test_a_sum_that_the_engine_tells_is_believed_and_what_goes_before_is_not_added() -> None:
    def so_far(index: int, completion: int) -> dict[str, Any]:
        return {"choices": [{"index": index}], "usage": {**SAID, "completion_tokens": completion}}

    whole = {"choices": [], "usage": {**SAID, "completion_tokens": 7}}
    found = streamed(RequestedChoices(2, 1), so_far(0, 1), so_far(1, 1), so_far(0, 4), so_far(1, 3), whole)
    assert found == TokenUsage(3, 7, True)


@pytest.mark.attack("engine")
def test_no_more_answers_are_kept_than_were_asked_for() -> None:
    """Whatever an engine calls them."""
    events = [{"choices": [{"index": index}], "usage": SAID} for index in (0, [1], {}, "x", None, 7, 8)]
    assert streamed(RequestedChoices(2, 1), *events) == TokenUsage(3, 10, True)


def test_of_a_stream_that_ends_early_the_events_count() -> None:
    word = {"choices": [{"index": 1, "text": "x"}]}
    alone = {"choices": [], "usage": SAID, "timings": {}}
    assert streamed(RequestedChoices(4, 1), *[word] * 9, alone) == TokenUsage(3, 10, False)
    assert streamed(RequestedChoices(4, 1), *[word] * 9) == TokenUsage(0, 9, False)


def test_a_message_tells_the_usage_of_its_prompt_first_and_that_of_its_answer_last() -> None:
    begun = {
        "type": "message_start",
        "message": {"usage": {"cache_read_input_tokens": 25, "input_tokens": 1, "output_tokens": 0}},
    }
    meter = EventStreamMeter(hide=False, edits=False, reader=MessageUsageReader())
    for document in [begun, *[{"type": "content_block_delta"}] * 5]:
        meter.take(b"event: x\ndata: " + json.dumps(document).encode() + b"\n\n")
    assert meter.usage() == TokenUsage(26, 6, False)
    meter.take(b'data: {"type": "message_delta", "usage": {"output_tokens": 4}}\n\n')
    assert meter.usage() == TokenUsage(26, 4, True)


def test_a_response_tells_its_usage_when_it_is_completed() -> None:
    ended = {"type": "response.completed", "response": {"usage": {"input_tokens": 26, "output_tokens": 4}}}
    meter = EventStreamMeter(hide=False, edits=False, reader=MessageUsageReader())
    meter.take(b"event: x\ndata: " + json.dumps(ended).encode() + b"\n\n")
    assert meter.usage() == TokenUsage(26, 4, True)
