"""What needs a decision of an administrator."""

from __future__ import annotations

from gpustack.policy.attention import Trouble, TroubleAction, TroubleSeverity

from ..route import ApiCall, ApiResponse, ApiRoute, tagged
from ..shape import (
    AnyJson,
    Array,
    Choice,
    Dictionary,
    Document,
    Instant,
    Integer,
    Nullable,
    Text,
)
from ..view import Doc


async def _attention(call: ApiCall) -> ApiResponse:
    found = await call.context.attention.troubles()
    return ApiResponse(document={"items": [_shown(trouble) for trouble in found]})


def _shown(trouble: Trouble) -> Doc:
    about = trouble.object
    return {
        "id": trouble.id,
        "kind": trouble.kind,
        "severity": trouble.severity.value,
        "text": trouble.text,
        "since": trouble.since,
        "object": {"kind": about.kind, "id": about.id, "name": about.name},
        "count": trouble.count,
        "actions": [_shown_action(action) for action in trouble.actions],
    }


def _shown_action(action: TroubleAction) -> Doc:
    return {
        "kind": action.kind,
        "label": action.label,
        "method": action.method,
        "path": action.path,
        "body": action.body,
        "confirm": action.confirm,
    }


_ACTION = Document(
    name="TroubleAction",
    fields={
        "kind": Text(),
        "label": Text(),
        "method": Text(),
        "path": Text(),
        "body": Nullable(Dictionary(AnyJson())),
        "confirm": Nullable(Text()),
    },
    note="A request to this API that would end it. confirm: the question to ask before it is sent.",
)
_TROUBLE = Document(
    name="Trouble",
    fields={
        "id": Text(),
        "kind": Text(),
        "severity": Choice(TroubleSeverity),
        "text": Text(),
        "since": Nullable(Instant()),
        "object": Document(
            name="TroubleObject", fields={"kind": Text(), "id": Nullable(Integer()), "name": Text()}
        ),
        "count": Integer(),
        "actions": Array(_ACTION),
    },
    note="id stays the same as long as it lasts. critical: something does not work; warning: it works less well, or "
    "soon will not; notice: it could be better. count: of how many things it tells.",
)

ROUTES = tagged(
    "attention",
    (
        ApiRoute(
            method="GET",
            path="/v1/attention",
            summary="Tell what needs a decision, the worst first, with the requests that would end it",
            handler=_attention,
            answer=Document(name="Attention", fields={"items": Array(_TROUBLE)}),
        ),
    ),
)
