"""Plans: what changes of deployments and workers would lead to; and a plan carried out, if all is as it was."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from gpustack.errors import Conflict, Unavailable
from gpustack.server.drain import begin_drain
from gpustack.server.plan import (
    MOST_ADDED,
    ClusterPlan,
    ModelOutlook,
    PlannedEnd,
    PlannedPlacement,
    PlannedWait,
    PlanQuestion,
    changed_since,
    foundations,
    make_plan,
    workers_named,
)
from gpustack.store.transaction import Tx

from ..manifest import ManifestChange, ManifestFaults, ManifestSet, read_manifests
from ..route import ApiCall, ApiResponse, ApiRoute, tagged
from ..shape import Array, AttrsObject, Boolean, Dictionary, Document, JsonShape, Text
from ..view import Doc, plain
from .manifests import CHANGES, MANIFESTS, MOST_TOLD, DryRun, of_faults, try_manifests, write_manifests

_NAMED = 10


async def _plan(call: ApiCall) -> ApiResponse:
    try:
        dry, found = await _planned(call, read_manifests(call.document.get("documents", ())))
    except ManifestFaults as error:
        return of_faults(error)
    return ApiResponse(document=_document(found, dry.changes))


async def _planned(call: ApiCall, manifests: ManifestSet) -> tuple[DryRun, ClusterPlan]:
    services = call.context.models
    if services.facts is None:
        raise Unavailable("Placement is not running on this server")
    dry = await try_manifests(call, manifests)
    question = PlanQuestion(
        add=call.document.get("add_workers", ()),
        lose=call.document.get("lose_workers", ()),
        drain=call.document.get("drain_workers", ()),
        remedies=call.document.get("remedies", False),
    )
    return dry, await make_plan(dry.before, dry.after, question, services.facts, services.gangs)


def _document(found: ClusterPlan, changes: Sequence[ManifestChange]) -> Doc:
    plan: Doc = plain(found)
    return {**plan, "changes": [change.document for change in changes]}


async def _apply(call: ApiCall) -> ApiResponse:
    try:
        manifests = read_manifests(call.document.get("documents", ()))
        dry, found = await _planned(call, manifests)
        _refuse_changed(call.document, found.rests_on)
        if found.decisions != call.document["decisions"]:
            raise Conflict(
                "What would come of it is not what was planned, though nothing that was written down has changed: "
                "workers measure other loads, for example. Plan again"
            )
        drained = call.document.get("drain_workers", ())
        steady = foundations(dry.before)

        def work(tx: Tx) -> Sequence[ManifestChange]:
            # Between the plan and this transaction others may have written.
            if tx.revision != dry.before.revision and (
                changed := changed_since(steady, foundations(tx.snapshot))
            ):
                raise Conflict(_refusal(changed))
            drains = [
                ("worker.update", begin_drain(tx, key, cordoned=True), {"fields": {"draining": True}})
                for key in workers_named(tx.snapshot, drained)
            ]
            return write_manifests(call, tx, manifests, drains)

        call.audit.details["drained"] = list(drained[:MOST_TOLD])
        changes = await call.context.store.write(work)
    except ManifestFaults as error:
        return of_faults(error)
    return ApiResponse(document=_document(found, changes))


def _refuse_changed(document: Mapping[str, Any], now: Mapping[str, str]) -> None:
    """Raise ``Conflict`` naming everything that is not as it was when the plan was made."""
    if changed := changed_since(document["rests_on"], now):
        raise Conflict(_refusal(changed))


def _refusal(changed: Sequence[str]) -> str:
    left = len(changed) - _NAMED
    named = ", ".join(changed[:_NAMED]) + (f" and {left} more" if left > 0 else "")
    return f"The plan does not hold any more: {named}. Plan again"


def _array(cls: type[Any]) -> JsonShape:
    return Array(AttrsObject(cls))


_NAMES = Array(Text(longest=255), 1000)
_QUESTION: Mapping[str, JsonShape] = {**MANIFESTS, "drain_workers": _NAMES}
_PLAN = Document(
    name="ClusterPlan",
    fields={
        "changes": CHANGES,
        "placements": _array(PlannedPlacement),
        "ends": _array(PlannedEnd),
        "waits": _array(PlannedWait),
        "models": _array(ModelOutlook),
        "remarks": Array(Text()),
        "rests_on": Dictionary(Text()),
        "decisions": Text(),
    },
    note="What would come of it. rests_on and decisions are digests, by which carrying it out tells whether it holds.",
)

ROUTES = tagged(
    "plans",
    (
        ApiRoute(
            method="POST",
            path="/v1/plans",
            summary="Say what changes of deployments and workers would lead to, without doing anything",
            handler=_plan,
            action="",  # it changes nothing
            body=Document(
                name="PlanRequest",
                fields={
                    **_QUESTION,
                    "lose_workers": _NAMES,
                    "add_workers": Array(Text(longest=200), MOST_ADDED),
                    "remedies": Boolean(),
                },
                strict=True,
                note="documents are manifests; workers are named, and added as COUNTxKIND or COUNTxSIZE. remedies: say "
                "of what waits which changes would help, which takes longer.",
            ),
            answer=_PLAN,
        ),
        ApiRoute(
            method="POST",
            path="/v1/plans/apply",
            summary="Carry out a plan, or refuse with what has changed since it was made",
            handler=_apply,
            action="plan.apply",
            body=Document(
                name="PlanApply",
                fields={**_QUESTION, "rests_on": Dictionary(Text(longest=64)), "decisions": Text(longest=64)},
                required=("rests_on", "decisions"),
                strict=True,
                note="The manifests and drained workers that the plan was made for, and its digests.",
            ),
            answer=_PLAN,
        ),
    ),
)
