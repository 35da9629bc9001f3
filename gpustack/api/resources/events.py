"""What happened to instances, models, workers and files, to list and to watch."""

from __future__ import annotations

from functools import partial
from typing import Any

from gpustack.domain.event import ClusterEvent, EventSeverity, ObjectKind
from gpustack.server.audit_trail import CLUSTER_EVENTS_KEPT
from gpustack.store import event_history
from gpustack.store.event_history import EventFilter

from ..access import guards_of, still_admitted
from ..event_feed import ClusterEventStream
from ..listing import PageRange, page_document
from ..problems import MalformedRequest
from ..request import Query, is_whole
from ..route import ApiCall, ApiResponse, ApiRoute, event_stream, tagged
from ..shape import (
    AnyJson,
    Boolean,
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
from ..view import Doc, View, fields_of

LARGEST_PAGE = 1000
_PAGE = 100

_FIELDS: dict[str, JsonShape] = {
    "id": Integer(),
    "at": Instant(),
    "kind": Text(),
    "severity": Choice(EventSeverity),
    "text": Text(),
    "actor": Text(),
    "model_id": Nullable(Integer()),
    "worker_id": Nullable(Integer()),
    "data": Dictionary(AnyJson()),
}
_OBJECT = Document(name="EventObject", fields={"kind": Choice(ObjectKind), "id": Integer(), "name": Text()})


def _shown(event: ClusterEvent) -> Doc:
    about = {"kind": event.object_kind.value, "id": event.object_id, "name": event.object_name}
    return {**fields_of(event, _FIELDS), "object": about}


_VIEW = View(
    schema=Document(
        name="ClusterEvent",
        fields={**_FIELDS, "object": _OBJECT},
        note="What happened, in one sentence. kind is such as `instance.failed`; actor is the account that did it, "
        "empty where nobody asked for it; data says the same for programs. They are kept for "
        f"{CLUSTER_EVENTS_KEPT.days} days, at most {event_history.MOST} in all and {event_history.MOST_OF_ONE} of one "
        "object.",
    ),
    of=lambda event, context: _shown(event),
)

_RANKS = (EventSeverity.INFO, EventSeverity.WARNING, EventSeverity.ERROR)


def _wanted(query: Query) -> EventFilter:
    """The filter that a query asks for. Raises ``MalformedRequest`` with every fault."""
    faults: list[str] = []
    given: dict[str, Any] = {"kind": query.one("kind") or None}
    if about := query.one("object"):
        given |= _object(about, faults)
    if since := query.one("since"):
        given |= (
            {"after": int(since)} if is_whole(since) else {"since": Instant().read(since, "since", faults)}
        )
    if until := query.one("until"):
        given["until"] = Instant().read(until, "until", faults)
    for name in ("model_id", "worker_id"):
        text = query.one(name)
        if text and not is_whole(text):
            faults.append(f"{name}: must be a whole number")
        elif text:
            given[name] = int(text)
    if severity := query.one("severity"):
        given["severities"] = _severities(severity, faults)
    if faults:
        raise MalformedRequest(*faults)
    return EventFilter(**given)


def _object(text: str, faults: list[str]) -> dict[str, Any]:
    """A kind, alone or with an id."""
    kind, _, key = text.partition(":")
    if kind in set(ObjectKind) and (not key or is_whole(key)):
        return {"object_kind": ObjectKind(kind), "object_id": int(key) if key else None}
    kinds = ", ".join(ObjectKind)
    faults.append(f"object: must be one of {kinds}, alone or with an id as in model-instance:12")
    return {}


def _severities(text: str, faults: list[str]) -> frozenset[EventSeverity] | None:
    """Those that are at least as severe."""
    if text not in _RANKS:
        faults.append(f"severity: must be one of {', '.join(_RANKS)}")
        return None
    return frozenset(_RANKS[_RANKS.index(EventSeverity(text)) :])


async def _list(call: ApiCall) -> ApiResponse:
    query, store = call.query, call.context.store
    wanted = _wanted(query)
    size = query.whole(
        "limit", query.whole("perPage", _PAGE, least=1, most=LARGEST_PAGE), least=1, most=LARGEST_PAGE
    )
    page = PageRange(number=query.whole("page", 1, least=1, most=event_history.MOST), size=size)
    if query.flag("watch"):
        return await _watch(call, wanted, size)
    skip = (page.number - 1) * size
    total = await store.query(partial(event_history.count, wanted=wanted))
    found = await store.query(partial(event_history.page, wanted=wanted, skip=skip, most=size))
    return ApiResponse(document=page_document([_shown(event) for event in found], page, total))


async def _watch(call: ApiCall, wanted: EventFilter, most: int) -> ApiResponse:
    """The newest events that there are, the oldest of them first; then the later ones."""
    context, caller = call.context, call.caller
    await context.events.refresh()
    last = context.events.last  # another watcher may read on meanwhile
    read = partial(event_history.page, wanted=wanted, skip=0, most=most)
    found = (await context.store.query(read))[::-1]
    stream = ClusterEventStream(
        store=context.store,
        feed=context.events,
        wanted=wanted,
        shown=_shown,
        allowed=lambda: still_admitted(context, caller),
        guards=guards_of(caller),
        first=found,
        seen=max(last, found[-1].id if found else 0),
        marked=call.query.flag("sync"),
    )
    return event_stream(stream)


ROUTES = tagged(
    "events",
    (
        ApiRoute(
            method="GET",
            path="/v1/events",
            summary="List what happened in the cluster, the newest first; or watch it",
            handler=_list,
            query=(
                QueryParameter(
                    name="object",
                    shape=Text(longest=64),
                    note="What they are about: `model`, `model-instance`, `worker` or `model-file`, alone or with an "
                    "id as in `model-instance:12`.",
                ),
                QueryParameter(name="model_id", shape=Integer(), note="Of a model and of its instances."),
                QueryParameter(
                    name="worker_id", shape=Integer(), note="Of a worker, its files, and the instances there."
                ),
                QueryParameter(
                    name="kind",
                    shape=Text(longest=64),
                    note="Such as `instance.failed`; `worker.` is all of workers.",
                ),
                QueryParameter(name="severity", shape=Choice(EventSeverity), note="The least."),
                QueryParameter(
                    name="since",
                    shape=Text(longest=64),
                    note="Those after this instant, or after the event of this id.",
                ),
                QueryParameter(name="until", shape=Instant(), note="Those before this instant."),
                QueryParameter(
                    name="limit",
                    shape=Integer(least=1, most=LARGEST_PAGE),
                    note=f"How many, {_PAGE} by default. `perPage` is the same.",
                ),
                QueryParameter(name="page", shape=Integer(least=1), note="Counted from 1."),
                QueryParameter(
                    name="watch",
                    shape=Boolean(),
                    note="Stream the last `limit` events, oldest first, then every later one, a JSON document a line.",
                ),
                QueryParameter(
                    name="sync", shape=Boolean(), note="With watch: mark the end of the present ones."
                ),
            ),
            answer=_VIEW,
            listed=True,
        ),
    ),
)
