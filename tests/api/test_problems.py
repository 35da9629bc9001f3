"""Every error has its status, and the route alone decides in which form it is told."""

from __future__ import annotations

import inspect
from typing import Any

import pytest

from gpustack import errors
from gpustack.api.problems import REASONS, MalformedRequest, problem_of, problem_of_status

OURS = {"code": 404, "reason": "NotFound", "message": "There is none"}
OPENAI = {"error": {"message": "There is none", "code": 404, "type": "NotFound"}}
ANTHROPIC = {"type": "error", "error": {"type": "not_found_error", "message": "There is none"}}


def test_every_error_of_the_product_has_a_row() -> None:
    named = {
        cls for _, cls in inspect.getmembers(errors, inspect.isclass) if cls.__module__ == errors.__name__
    }
    assert named - {errors.GpustackError} == set(REASONS)


def test_a_subclass_is_answered_as_its_nearest_ancestor() -> None:
    class Fuller(errors.Unavailable):
        pass

    problem = problem_of(Fuller("The queue is full", 1.2))
    assert (problem.status, problem.reason, problem.headers) == (
        503,
        "ServiceUnavailable",
        {"Retry-After": "2"},
    )


def test_wrong_fields_are_counted_and_told_one_a_line() -> None:
    problem = problem_of(MalformedRequest("name: is missing", "replicas: must be a whole number"))
    assert problem.document("/v1/users") == {
        "code": 422,
        "reason": "Invalid",
        "message": "2 validation errors:\nname: is missing\nreplicas: must be a whole number",
    }


@pytest.mark.parametrize(
    ("path", "form"),
    [
        ("/v1/models", {**OURS, **OPENAI}),
        ("/v1/models/3", {**OURS, **OPENAI}),
        ("/v1/models/org/name", {**OURS, **OPENAI}),
        ("/v1/models-of-others", OURS),
        ("/v1/users", OURS),
        ("/auth/login", OURS),
        ("/v1/messages-of-others", OURS),
        ("/v1-openai/models", OPENAI),
        ("/v1-openai/chat/completions", OPENAI),
        ("/v1/chat/completions", OPENAI),
        ("/v1/embeddings", OPENAI),
        ("/v1/rerank", OPENAI),
        ("/v1/responses", OPENAI),
        ("/v1/audio/speech", OPENAI),
        ("/v1/messages", ANTHROPIC),
        ("/v1/messages/count_tokens", ANTHROPIC),
    ],
)
def test_the_route_decides_the_form_of_an_error(path: str, form: dict[str, Any]) -> None:
    assert problem_of(errors.NotFound("There is none")).document(path) == form


def test_a_limit_is_told_in_the_words_of_each_form() -> None:
    problem = problem_of(errors.LimitReached("Too many", 3.0, kind="requests", code="rate_limit_exceeded"))
    assert problem.document("/v1/responses")["error"]["type"] == "requests"
    assert problem.document("/v1/messages")["error"] == {"type": "rate_limit_error", "message": "Too many"}


def test_an_error_raised_in_one_form_keeps_the_other_intact() -> None:
    error = errors.NotFound("There is none")
    problem_of(error).document("/v1-openai/models")
    assert "reason" in problem_of(error).document("/v1/users")


@pytest.mark.parametrize(
    ("status", "reason"), [(404, "NotFound"), (405, "MethodNotAllowed"), (409, "Conflict"), (599, "Error")]
)
def test_a_bare_status_gets_a_reason_too(status: int, reason: str) -> None:
    assert problem_of_status(status).reason == reason
