"""What a request may use at most is never said too low, whatever its client writes."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gpustack.domain.usage import Operation
from gpustack.errors import BadRequest
from gpustack.gateway.token_bound import TokenBound, bound_of

CHAT, COMPLETION, EMBEDDING = Operation.CHAT_COMPLETION, Operation.COMPLETION, Operation.EMBEDDING
CONTEXT = 8192


def body(**fields: Any) -> bytes:
    return json.dumps({"model": "m", **fields}).encode()


def total(fields: dict[str, Any], operation: Operation = CHAT, context: int | None = CONTEXT) -> int | None:
    return bound_of(body(**fields), operation, context).total


def test_the_prompt_counts_by_its_bytes_and_the_answer_as_long_as_it_may_become() -> None:
    text = body(messages=[{"role": "user", "content": "x" * 1000}], max_tokens=50)
    prompt = len(text) + 256
    assert bound_of(text, CHAT, CONTEXT) == TokenBound(prompt, prompt + 50, 50)
    assert bound_of(text, CHAT, None) == TokenBound(prompt, prompt + 50, 50)
    assert bound_of(text, CHAT, 512) == TokenBound(512, 512, 50)


def test_without_a_length_the_context_is_the_bound() -> None:
    assert total({"messages": []}) == CONTEXT
    assert total({"messages": []}, context=None) is None
    assert total({"messages": [], "max_tokens": None}) == CONTEXT
    assert total({"messages": [], "n": 3}) == 3 * CONTEXT


@pytest.mark.attack("limits")
@pytest.mark.parametrize(
    "more",
    [
        {"n_predict": 5000},
        {"max_completion_tokens": 5000},
        {"max_new_tokens": 5000},
        {"max_output_tokens": 5000},
        {"n": 5000},
        {"best_of": 5000},
        {"n_cmpl": 5000},
    ],
)
def test_no_other_word_for_more_is_overlooked(more: dict[str, int]) -> None:
    """An engine may heed a field that we had not looked at."""
    found = total({"messages": [], "max_tokens": 1, **more}, context=None)
    assert found is not None
    assert found >= 5000


@pytest.mark.attack("limits")
@pytest.mark.parametrize("wrong", [-1, 0, -(2**40)])
def test_lengths_that_engines_take_for_without_end_are_without_end(wrong: int) -> None:
    for name in ("max_tokens", "n_predict"):
        assert total({"messages": [], "max_completion_tokens": 5, name: wrong}, context=None) is None
        assert total({"messages": [], "max_completion_tokens": 5, name: wrong}) == CONTEXT
    assert (
        total({"messages": [], "n": wrong, "max_tokens": 9}, context=None)
        == total({"messages": [], "n": wrong, "max_tokens": 8}, context=None) + 1
    )  # type: ignore[operator]  # it is known


@pytest.mark.attack("limits")
@pytest.mark.parametrize("wrong", ["5", 5.0, [5], {"a": 5}, True, 1e400])
def test_what_engines_might_read_differently_is_refused(wrong: Any) -> None:
    for name in ("max_tokens", "n", "n_predict"):
        with pytest.raises(BadRequest, match=f"'{name}' must be a whole number"):
            bound_of(body(messages=[], **{name: wrong}), CHAT, CONTEXT)


@pytest.mark.attack("limits")
@pytest.mark.parametrize(
    "twice", [b'"max_tokens": 1, "max_tokens": 9', b'"max_tokens": 9, "max_\\u0074okens": 1', b'"n":1,"n":9']
)
def test_a_length_given_twice_is_refused(twice: bytes) -> None:
    with pytest.raises(BadRequest, match="is given twice"):
        bound_of(b'{"model": "m", %b}' % twice, CHAT, CONTEXT)


@pytest.mark.attack("limits")
@pytest.mark.parametrize(
    "part",
    [
        {"type": "image_url", "image_url": {"url": "http://host/large.png"}},
        {"type": "input_audio", "input_audio": {"data": "", "format": "mp3"}},
        {"type": "video_url", "video_url": {"url": "http://host/v"}},
        {"type": "file", "file": {"file_id": "f"}},
        {"type": "image_embeds", "image_embeds": "AAAA"},
    ],
)
def test_pictures_and_sound_are_not_counted_by_their_bytes(part: dict[str, Any]) -> None:
    fields = {"messages": [{"role": "user", "content": [part]}], "max_tokens": 5}
    assert total(fields) == CONTEXT
    assert total(fields, context=None) is None
    hidden = body(**fields).replace(b'"image_url"', b'"\\u0069mage_url"')
    assert bound_of(hidden, CHAT, None).total is None


@pytest.mark.attack("limits")
def test_pictures_beside_a_prompt_are_not_counted_by_their_bytes() -> None:
    prompt = {"prompt_string": "<__media__>", "multimodal_data": ["AAAA"]}
    found = bound_of(body(prompt=prompt, max_tokens=5), COMPLETION, CONTEXT)
    assert found.total == CONTEXT
    assert bound_of(body(prompt=prompt, max_tokens=5), COMPLETION, None).total is None


@pytest.mark.attack("limits")
@pytest.mark.parametrize(
    ("prompt", "answers"),
    [
        ("one", 1),
        (["one"], 1),
        (["one", "two", "three"], 3),
        ([[1], [2], [3], [4]], 4),
        ([1, 2, 3], 1),
        (['a "quoted" one', "["], 2),
    ],
)
def test_each_prompt_has_an_answer_of_its_own(prompt: Any, answers: int) -> None:
    found = bound_of(body(prompt=prompt, max_tokens=1000, n=2), COMPLETION, None)
    assert found.total is not None
    assert found.total >= found.prompt + 2 * answers * 1000
    if answers == 1:
        assert found.total == found.prompt + 2000


def test_vectors_take_no_more_than_their_texts() -> None:
    text = body(input=["x" * 5000, "y" * 5000])
    assert bound_of(text, EMBEDDING, 4096) == TokenBound(len(text) + 256, len(text) + 256)
    assert bound_of(text, EMBEDDING, None).total == len(text) + 256


def test_of_pictures_and_speech_nothing_is_reserved() -> None:
    for operation in (Operation.IMAGE_GENERATION, Operation.AUDIO_SPEECH, Operation.AUDIO_TRANSCRIPTION):
        assert bound_of(body(input="x" * 5000), operation, None) == TokenBound(0, 0)


@pytest.mark.attack("limits")
def test_a_query_counts_with_each_document() -> None:
    found = bound_of(body(query="q" * 1000, documents=["x"] * 50), Operation.RERANK, None)
    assert found.total is not None
    assert found.total >= 50 * 1001


@pytest.mark.attack("limits")
def test_a_template_of_the_clients_is_not_counted_by_its_bytes() -> None:
    endless = "{% for n in range(99999) %}x{% endfor %}"
    assert total({"messages": [], "max_tokens": 5, "chat_template": endless}, context=None) is None
    assert total({"messages": [], "max_tokens": 5, "chat_template": endless}) == CONTEXT


TEXTS = st.lists(st.text(max_size=200), max_size=5)


@given(TEXTS, st.integers(1, 10**6), st.integers(1, 5), st.integers(1, 10**5))
def test_a_text_has_no_more_tokens_than_bytes(texts: list[str], length: int, n: int, context: int) -> None:
    fields = {"messages": [{"role": "user", "content": text} for text in texts], "max_tokens": length, "n": n}
    most = sum(len(text.encode("utf-8", "surrogatepass")) for text in texts)
    for written in (json.dumps(fields), json.dumps(fields, ensure_ascii=True, indent=1)):
        free = bound_of(written.encode(), CHAT, None)
        assert free.total is not None
        assert free.total >= most + n * length
        held = bound_of(written.encode(), CHAT, context)
        assert held.total == min(min(free.prompt, context) + n * length, n * context)
