"""Manifests: everything that a cluster is to hold, exported, and written all at once or not at all."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import attrs

from gpustack.domain.snapshot import Snapshot
from gpustack.errors import Forbidden
from gpustack.policy.access import CHANGING
from gpustack.store.transaction import Tx

from ..audit_recorder import AuditPart
from ..manifest import (
    FIELD_CHANGES,
    ManifestChange,
    ManifestFault,
    ManifestFaults,
    ManifestSet,
    apply_manifests,
    export_manifests,
    kinds,
    read_manifests,
)
from ..problems import Problem
from ..route import ApiCall, ApiResponse, ApiRoute, tagged
from ..shape import AnyJson, Array, Boolean, Document, QueryParameter, Text
from ..view import Doc, plain

MOST_DOCUMENTS = 1000


@attrs.frozen
class DryRun(Exception):
    """Raised at the end of a work so that its writes are undone: what it would have changed, the records before, and as
    they would be after."""

    changes: Sequence[ManifestChange]
    before: Snapshot
    after: Snapshot


async def _export(call: ApiCall) -> ApiResponse:
    secrets = call.query.flag("secrets")
    if not secrets:
        call.audit.action = ""  # reading
    elif not call.caller.has_scope(*CHANGING):
        raise Forbidden(
            f"This API key may not read secrets: it needs the scope {' or '.join(sorted(CHANGING))}. Leave secrets out."
        )
    found = export_manifests(call.snapshot, secrets=secrets)
    return ApiResponse(document={"documents": found})


async def _apply(call: ApiCall) -> ApiResponse:
    try:
        manifests = read_manifests(call.document["documents"])
        dry_run = bool(call.document.get("dry_run"))
        if dry_run:
            call.audit.action = ""  # it changes nothing
        done = (await try_manifests(call, manifests)).changes if dry_run else await _write(call, manifests)
    except ManifestFaults as error:
        return of_faults(error)
    return ApiResponse(document={"dry_run": dry_run, "objects": [change.document for change in done]})


async def _write(call: ApiCall, manifests: ManifestSet) -> Sequence[ManifestChange]:
    def work(tx: Tx) -> Sequence[ManifestChange]:
        return write_manifests(call, tx, manifests)

    return await call.context.store.write(work)


def write_manifests(
    call: ApiCall, tx: Tx, manifests: ManifestSet, further: Sequence[AuditPart] = ()
) -> Sequence[ManifestChange]:
    """Write all, and have the audit trail say what became of each, beside what else the caller did. Raises
    ``ManifestFaults``."""
    changes = apply_manifests(tx, manifests, call.caller.username)
    call.audit.details["objects"] = {f"{one.kind}/{one.name}": one.change for one in changes[:MOST_TOLD]}
    call.audit.also(
        [
            (
                f"{_NOUNS[one.kind]}.{'create' if one.change == 'created' else 'update'}",
                one.record,
                one.details,
            )
            for one in changes
            if one.record is not None and one.change != "unchanged"
        ]
        + list(further)
    )
    return changes


_NOUNS = {"Model": "model", "Backend": "inference-backend", "Limits": "limits"}
MOST_TOLD = 100
"""Objects that the event of the whole names; each that was changed has an event of its own."""


async def try_manifests(call: ApiCall, manifests: ManifestSet) -> DryRun:
    """What writing them would change, with nothing written or audited. Raises ``ManifestFaults``."""
    name = call.caller.username

    def work(tx: Tx) -> None:
        before = tx.snapshot
        changes = apply_manifests(tx, manifests, name)
        raise DryRun(changes, before, tx.snapshot)

    try:
        await call.context.store.write(work)
    except DryRun as found:
        return found
    raise AssertionError("a dry run always ends with what it found")


def _faults_document(error: ManifestFaults) -> Doc:
    """The answer to manifests with faults: the usual form of an error, and each fault as data."""
    lines = [f"documents[{one.document}]{_at(one)}: {one.sentence}" for one in error.faults]
    problem = Problem(status=422, reason="Invalid", message="\n".join([f"{error}:", *lines]))
    told = [plain(one) for one in error.faults]
    return {**problem.document("/v1/manifests"), "faults": told}


def of_faults(error: ManifestFaults) -> ApiResponse:
    """The answer to them."""
    return ApiResponse(status=422, document=_faults_document(error))


def _at(fault: ManifestFault) -> str:
    return f".{fault.field}" if fault.field else ""


def _kinds_note() -> str:
    parts = (f"{kind.name} ({', '.join(kind.body.fields)})" for kind in kinds().values())
    return f"kind is one of {', '.join(parts)}. Fields that are left out have their defaults."


MANIFESTS: Mapping[str, Any] = {"documents": Array(AnyJson(), MOST_DOCUMENTS)}
"""The field of a body that holds manifests."""
CHANGES = Array(
    Document(
        name="ManifestChange",
        fields={
            "kind": Text(),
            "name": Text(),
            "change": Text(),
            "fields": FIELD_CHANGES,
        },
        note="change is created, changed or unchanged; fields are those that differ, with secrets masked.",
    )
)

ROUTES = tagged(
    "manifests",
    (
        ApiRoute(
            method="GET",
            path="/v1/manifests",
            summary="Export models, backends and limits as manifests that can be applied again",
            handler=_export,
            action="manifest.export",
            query=(
                QueryParameter(
                    name="secrets",
                    shape=Boolean(),
                    note="With values that are likely secret, which are left out and named in secrets_kept else. It "
                    "needs the scope management, and the audit trail tells of it.",
                ),
            ),
            answer=Document(name="ManifestList", fields=MANIFESTS, note=_kinds_note()),
        ),
        ApiRoute(
            method="POST",
            path="/v1/manifests",
            summary="Create and change what manifests describe: all of it, or nothing with all faults",
            handler=_apply,
            action="manifest.apply",
            body=Document(
                name="ManifestApply",
                fields={**MANIFESTS, "dry_run": Boolean()},
                required=("documents",),
                strict=True,
                note=_kinds_note(),
            ),
            answer=Document(name="ManifestChanges", fields={"dry_run": Boolean(), "objects": CHANGES}),
        ),
    ),
)
