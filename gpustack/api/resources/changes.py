"""The changes of the cluster in one stream, for pages that show all of it."""

from __future__ import annotations

from gpustack.domain.access import Role
from gpustack.errors import Forbidden

from ..access import guards_of, still_admitted
from ..brief import SHAPES, BriefKind
from ..change_stream import Audience, ChangeStream, LoadNews, OwnModels, WholeCluster
from ..problems import MalformedRequest
from ..request import is_whole
from ..route import PEOPLE, ApiCall, ApiResponse, ApiRoute, event_stream, tagged
from ..shape import Array, Document, Integer, QueryParameter, Text
from ..wire import MODEL_FOR_USERS

MOST_LOADS = 256
"""Workers and models of which one stream tells what changes all the time: more than a screen shows."""
_RESUME = b"last-event-id"


def _kinds(call: ApiCall) -> frozenset[BriefKind]:
    """The kinds that are asked for; without the parameter all that the caller may list."""
    is_admin = call.caller.role is Role.ADMIN
    allowed = frozenset(BriefKind if is_admin else {BriefKind.MODELS})
    text = call.query.one("kinds")
    if text is None:
        return allowed
    names = [name.strip() for name in text.split(",") if name.strip()]
    known = {kind.value: kind for kind in BriefKind}
    wrong = [name[:64] for name in names if name not in known]
    if wrong:
        raise MalformedRequest(
            f"kinds: there is no {wrong[0]!r}; there are {', '.join(kind.value for kind in BriefKind)}"
        )
    kinds = frozenset(known[name] for name in names)
    if kinds - allowed:
        raise Forbidden(f"Only administrators see {', '.join(sorted(kinds - allowed))}")
    return kinds


def _ids(call: ApiCall, parameter: str) -> frozenset[int]:
    """The workers whose loads, or the models whose rates are asked for."""
    names = [name.strip() for name in (call.query.one(parameter) or "").split(",") if name.strip()]
    if not names:
        return frozenset()
    if call.caller.role is not Role.ADMIN:
        raise Forbidden(f"Only administrators see {parameter}")
    if len(names) > MOST_LOADS or not all(map(is_whole, names)):
        raise MalformedRequest(f"{parameter}: must be at most {MOST_LOADS} ids, with commas between them")
    return frozenset(map(int, names))


def _since(call: ApiCall) -> int | None:
    """The revision to go on from. What a browser sends after it lost the stream goes before the query."""
    seen = call.request.text(_RESUME)
    if is_whole(seen):
        return int(seen)
    since = call.query.whole("since", -1, least=-1)
    return None if since < 0 else since


def _audience(call: ApiCall, kinds: frozenset[BriefKind]) -> Audience:
    context, caller = call.context, call.caller
    if caller.role is Role.ADMIN or not kinds:
        return WholeCluster(context.feed, kinds)
    return OwnModels(caller, lambda model: MODEL_FOR_USERS.of(model, context.rendering()))


async def _changes(call: ApiCall) -> ApiResponse:
    context, caller = call.context, call.caller
    stream = ChangeStream(
        store=context.store,
        feed=context.feed,
        audience=_audience(call, _kinds(call)),
        loads=LoadNews(context.workers.live, _ids(call, "loads"), context.usage.rates, _ids(call, "rates")),
        allowed=lambda: still_admitted(context, caller),
        guards=guards_of(caller),
        since=_since(call),
    )
    return event_stream(stream)


_ANSWER = Document(
    name="ClusterChanges",
    fields={kind.value: Array(shape) for kind, shape in SHAPES.items()},
    note="The documents by kind. Events: `state` with [[kind, document], …] at the start; `synced`; then `change` with "
    "[[kind, 1|2|3, document or {id}], …] (created, changed, deleted), all of a commit together; `loads` with "
    "[[worker id, {cpu, memory, gpu_devices}], …]; `rates` with [[model id, {tokens_per_second, "
    "prompt_tokens_per_second, last_used_at}], …], what is not known left out; `reset`: forget everything, all is told "
    "again. Ids of events are revisions.",
)

ROUTES = tagged(
    "changes",
    (
        ApiRoute(
            method="GET",
            path="/v1/changes",
            summary="Stream the cluster as brief documents, then every change; resumes after a lost connection",
            handler=_changes,
            allow=PEOPLE,
            query=(
                QueryParameter(
                    name="kinds",
                    shape=Text(longest=256),
                    note="Which, with commas: `models`, `workers`, `model-instances`, `model-files`; by default all "
                    "that the caller may list. Empty: none, for loads alone.",
                ),
                QueryParameter(
                    name="since",
                    shape=Integer(least=0),
                    note="Go on after this revision. The header `Last-Event-ID` says the same and goes before it. "
                    "Where that is too long ago the stream begins with `reset`.",
                ),
                QueryParameter(
                    name="loads",
                    shape=Text(longest=4096),
                    note=f"Ids of at most {MOST_LOADS} workers, with commas: their loads are told every 15 s.",
                ),
                QueryParameter(
                    name="rates",
                    shape=Text(longest=4096),
                    note=f"The same for at most {MOST_LOADS} models: how fast they read and write, and when they were "
                    "used last.",
                ),
            ),
            answer=_ANSWER,
            answer_type="text/event-stream",
        ),
    ),
)
