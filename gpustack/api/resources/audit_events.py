"""The audit trail, to list and to export."""

from __future__ import annotations

import functools
from collections.abc import AsyncGenerator
from contextlib import AsyncExitStack
from typing import Any

from gpustack.domain.audit import AuditEvent, AuditOutcome
from gpustack.store import audit_history
from gpustack.store.audit_history import AuditFilter
from gpustack.store.store import Store

from ..body_stream import OpenedStream
from ..csv_text import CSV, attached, csv_lines
from ..listing import ALL, PageRange, page_document
from ..mask import legible
from ..problems import MalformedRequest
from ..request import Query, is_whole
from ..route import ApiCall, ApiResponse, ApiRoute, tagged
from ..shape import (
    AnyJson,
    Choice,
    Dictionary,
    Document,
    Instant,
    Integer,
    JsonShape,
    Nullable,
    QueryParameter,
    Text,
)
from ..view import Doc, View, dumps, fields_of

_AT_ONCE = 500
"""Events of an export that are in memory at a time."""
_SKIPPED_AT_MOST = 1_000_000

_FIELDS: dict[str, JsonShape] = {
    "id": Integer(),
    "at": Instant(),
    "action": Text(),
    "outcome": Choice(AuditOutcome),
    "status": Integer(),
    "actor_id": Nullable(Integer()),
    "actor_name": Text(),
    "actor_role": Text(),
    "means": Text(),
    "api_key_id": Nullable(Integer()),
    "address": Text(),
    "target_type": Text(),
    "target_id": Nullable(Integer()),
    "target_name": Text(),
    "details": Dictionary(AnyJson()),
}


def _shown(event: AuditEvent) -> Doc:
    return fields_of(event, _FIELDS)


_VIEW = View(
    schema=Document(
        name="AuditEvent",
        fields=_FIELDS,
        note="Who did what, when and from where. `means` is how the caller proved who it is: cookie, basic, key, "
        "local (a program on the server's machine), token, worker, or password at a login. Of refused attempts the "
        "actor is who the credentials spoke of. `details` holds what was changed, secrets masked; `count` where more "
        "of the same happened within a minute; `claimed_address` is what a header says, which anybody can write.",
    ),
    of=lambda event, context: _shown(event),
)


def _wanted(query: Query) -> AuditFilter:
    """The filter that a query asks for. Raises ``MalformedRequest`` with every fault."""
    faults: list[str] = []
    given: dict[str, Any] = {}
    for name in ("actor", "action", "means", "address", "target_type", "search"):
        given[name] = query.one(name) or None
    for parameter, field in (("from", "since"), ("to", "until")):
        text = query.one(parameter)
        given[field] = Instant().read(text, parameter, faults) if text else None
    outcome, target = query.one("outcome"), query.one("target_id")
    given["outcome"] = Choice(AuditOutcome).read(outcome, "outcome", faults) if outcome else None
    if target and not is_whole(target):
        faults.append("target_id: must be a whole number")
    elif target:
        given["target_id"] = int(target)
    if faults:
        raise MalformedRequest(*faults)
    return AuditFilter(**given)


async def _list(call: ApiCall) -> ApiResponse:
    wanted, page, store = _wanted(call.query), PageRange.of(call.query), call.context.store
    if page.size == ALL:
        raise MalformedRequest(
            "perPage: must be from 1 to 100 here; /v1/audit-events/export gives all of them"
        )
    skip = (page.number - 1) * page.size
    if skip > _SKIPPED_AT_MOST:
        raise MalformedRequest("page: is too far back; use to, or /v1/audit-events/export")
    total = await store.query(functools.partial(audit_history.count, wanted=wanted))
    found = await store.query(functools.partial(audit_history.page, wanted=wanted, skip=skip, most=page.size))
    return ApiResponse(document=page_document([_shown(event) for event in found], page, total))


_FORMS = {"ndjson": "application/x-ndjson", "csv": CSV}


async def _export(call: ApiCall) -> ApiResponse:
    form = call.query.one("format") or "ndjson"
    if form not in _FORMS:
        raise MalformedRequest(f"format: must be one of {', '.join(_FORMS)}")
    wanted = _wanted(call.query)
    known = {parameter.name for parameter in _FILTERS}
    filters = {name: legible(value) for name, value in call.query.pairs if name in known}
    call.audit.details.update({"format": form, "filters": filters})
    pieces = _pieces(call.context.store, wanted, form == "csv")
    stack = AsyncExitStack()
    stack.push_async_callback(pieces.aclose)
    return ApiResponse(
        stream=OpenedStream(stack, pieces),
        content_type=_FORMS[form],
        headers=(attached(f"audit-events.{form}"),),
    )


async def _pieces(store: Store, wanted: AuditFilter, as_csv: bool) -> AsyncGenerator[bytes]:
    """The events as text, the newest first, read a part at a time. Events that are added meanwhile are not in it."""
    before: tuple[Any, int] | None = None
    heads = True
    while True:
        read = functools.partial(audit_history.older, wanted=wanted, than=before, most=_AT_ONCE)
        events = await store.query(read)
        yield _csv(events, heads=heads) if as_csv else _lines(events)
        if len(events) < _AT_ONCE:
            return
        before, heads = (events[-1].at, events[-1].id), False


def _lines(events: list[AuditEvent]) -> bytes:
    return b"".join(dumps(_shown(event)) + b"\n" for event in events)


def _csv(events: list[AuditEvent], *, heads: bool) -> bytes:
    rows: list[list[Any]] = [list(_FIELDS)] if heads else []
    for event in events:
        shown = _shown(event) | {"at": event.at}
        shown["details"] = dumps(shown["details"]).decode() if shown["details"] else ""
        rows.append(list(shown.values()))
    return csv_lines(rows)


_FILTERS = (
    QueryParameter(name="actor", shape=Text(), note="Name or id of who did it."),
    QueryParameter(name="action", shape=Text(), note="Such as `model.update`; `model.` is all of models."),
    QueryParameter(name="outcome", shape=Choice(AuditOutcome)),
    QueryParameter(name="means", shape=Text(), note="How who did it was known."),
    QueryParameter(name="address", shape=Text(), note="Where it came from."),
    QueryParameter(name="target_type", shape=Text(), note="Such as `model` or `api-key`."),
    QueryParameter(name="target_id", shape=Integer()),
    QueryParameter(name="from", shape=Instant(), note="Not before this instant."),
    QueryParameter(name="to", shape=Instant(), note="Before this instant."),
    QueryParameter(name="search", shape=Text(), note="Part of a name, an action or an address, in any case."),
)

ROUTES = tagged(
    "audit-events",
    (
        ApiRoute(
            method="GET",
            path="/v1/audit-events",
            summary="List what was done and what was refused, the newest first",
            handler=_list,
            query=(
                *_FILTERS,
                QueryParameter(name="page", shape=Integer(least=1), note="Counted from 1."),
                QueryParameter(name="perPage", shape=Integer(least=1, most=100), note="1 to 100 (default)."),
            ),
            answer=_VIEW,
            listed=True,
        ),
        ApiRoute(
            method="GET",
            path="/v1/audit-events/export",
            summary="Take the audit trail away, as a stream of JSON lines or CSV",
            handler=_export,
            action="audit.export",
            query=(
                *_FILTERS,
                QueryParameter(name="format", shape=Text(), note="`ndjson` (default) or `csv`."),
            ),
            answer_type="application/x-ndjson",
        ),
    ),
)
