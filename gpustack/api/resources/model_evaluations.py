"""Evaluates deployments before they are created: would they run here, what is missing, what would they claim."""

from __future__ import annotations

from typing import Any

import attrs
import trio

from gpustack.domain.model import Model
from gpustack.engines.backend import settled
from gpustack.errors import AlreadyExists, BadRequest, Invalid, Unavailable
from gpustack.server.evaluation import Evaluation, Evaluator, incompatible

from ..deployment import MODEL_BODY, model_from, refuse_wrong
from ..route import ApiCall, ApiResponse, ApiRoute, tagged
from ..shape import Array, Boolean, Document, Integer, Nullable, Text
from ..view import Doc, plain

MOST_SPECS = 64
_FROM_CATALOG = ("backend_parameters", "env", "categories")
_UNNAMED = "a-deployment-that-is-only-being-considered"


async def _evaluate(call: ApiCall) -> ApiResponse:
    evaluator = call.context.models.evaluator
    if evaluator is None:
        raise Unavailable("Placement is not running on this server")
    specs = call.document["model_specs"]
    results: list[Doc | None] = [None] * len(specs)

    async def one(place: int, spec: dict[str, Any]) -> None:
        results[place] = await _result(call, evaluator, spec)

    async with trio.open_nursery() as nursery:
        for place, spec in enumerate(specs):
            nursery.start_soon(one, place, spec)
    return ApiResponse(document={"results": results})


async def _result(call: ApiCall, evaluator: Evaluator, spec: dict[str, Any]) -> Doc:
    completed = await _completed(call, spec)
    try:
        model = _model(call, spec if completed is None else completed)
    except (Invalid, BadRequest, AlreadyExists) as error:
        faults = error.faults if isinstance(error, Invalid) else (str(error),)
        return _document(incompatible(*faults), completed)
    return _document(await evaluator.evaluate(model), completed)


def _model(call: ApiCall, spec: dict[str, Any]) -> Model:
    """The deployment to evaluate: its name and number of replicas do not matter."""
    model = attrs.evolve(model_from({**spec, "name": _UNNAMED}), replicas=1)
    refuse_wrong(model, call.snapshot)
    return settled(model, call.snapshot.backends.values())


async def _completed(call: ApiCall, spec: dict[str, Any]) -> dict[str, Any] | None:
    """The spec completed with the catalog's fields for its source; ``None`` if there is nothing to add."""
    repo = spec.get("huggingface_repo_id") or spec.get("model_scope_model_id")
    catalog = call.context.models.catalog
    defaults = await catalog.defaults_for(repo) if catalog is not None and repo else None
    if defaults is None:
        return None
    faults: list[str] = []
    added = {
        name: MODEL_BODY[name].read(defaults[name], name, faults)
        for name in _FROM_CATALOG
        if defaults.get(name) and not spec.get(name)
    }
    return {**spec, **added} if added and not faults else None


def _document(found: Evaluation, completed: dict[str, Any] | None) -> Doc:
    claim = None if found.ram is None or found.vram is None else {"ram": found.ram, "vram": found.vram}
    return {
        "compatible": found.compatible,
        "compatibility_messages": list(found.compatibility_messages),
        "scheduling_messages": list(found.scheduling_messages),
        "default_spec": None if completed is None else plain(completed),
        "resource_claim": claim,
        "error": None if found.error is None else True,
        "error_message": found.error,
    }


_SPEC = Document(
    name="ModelEvaluationSpec",
    fields={**MODEL_BODY, "name": Nullable(Text(longest=200))},
    required=("source",),
    note="A deployment that may leave its name open.",
)
_RESULT = Document(
    name="ModelEvaluationResult",
    fields={
        "compatible": Boolean(),
        "compatibility_messages": Array(Text()),
        "scheduling_messages": Array(Text()),
        "default_spec": Nullable(_SPEC),
        "resource_claim": Nullable(
            Document(
                name="EvaluatedClaim", fields={"ram": Integer(), "vram": Integer()}, note="Bytes, estimated."
            )
        ),
        "error": Nullable(Boolean()),
        "error_message": Nullable(Text()),
    },
    note="default_spec is the deployment with what the catalog adds to it.",
)

ROUTES = tagged(
    "model-evaluations",
    (
        ApiRoute(
            method="POST",
            path="/v1/model-evaluations",
            summary="Say of deployments whether they would run here, and what they would claim",
            handler=_evaluate,
            action="",  # it changes nothing
            body=Document(
                name="ModelEvaluationRequest",
                fields={"model_specs": Array(_SPEC, MOST_SPECS)},
                required=("model_specs",),
            ),
            answer=Document(name="ModelEvaluationResults", fields={"results": Array(_RESULT)}),
        ),
    ),
)
