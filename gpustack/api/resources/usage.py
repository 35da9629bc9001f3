"""Usage summed by day, user, key, model and operation, as JSON or CSV."""

from __future__ import annotations

from functools import partial
from typing import Any

from gpustack.domain.access import Role
from gpustack.store import usage_history
from gpustack.store.usage_history import GROUPS, UsageGroup

from ..csv_text import CSV, attached, csv_lines
from ..problems import MalformedRequest
from ..route import PEOPLE, ApiCall, ApiResponse, ApiRoute, tagged
from ..shape import Array, Document, Instant, Integer, JsonShape, Nullable, QueryParameter, Text
from ..view import Doc
from .dashboard import MOST_ROWS, SPAN, span_of

_USUAL = ("day", "user", "model")
_FORMATS = ("json", "csv")
_COUNTS = ("request_count", "failed_count", "prompt_token_count", "completion_token_count")


def _groups(call: ApiCall) -> tuple[str, ...]:
    text = call.query.one("by")
    if text is None:
        return _USUAL
    names = [name.strip() for name in text.split(",") if name.strip()]
    wrong = [name[:64] for name in names if name not in GROUPS]
    if wrong:
        raise MalformedRequest(f"by: there is no {wrong[0]!r}; there are {', '.join(GROUPS)}")
    return tuple(name for name in GROUPS if name in names)


async def _usage(call: ApiCall) -> ApiResponse:
    span, by = span_of(call), _groups(call)
    form = call.query.one("format") or "json"
    if form not in _FORMATS:
        raise MalformedRequest(f"format: must be one of {', '.join(_FORMATS)}")
    if call.caller.role is not Role.ADMIN:
        span["user_ids"] = [call.account.id]
    found = await call.context.store.query(partial(usage_history.sums, **span, by=by, limit=MOST_ROWS + 1))
    if len(found) > MOST_ROWS:
        raise MalformedRequest(
            f"start_date: there are more than {MOST_ROWS} rows; ask for fewer days, or sum by less"
        )
    rows = [_row(call, one, by) for one in found]
    if form == "json":
        return ApiResponse(document={"items": rows})
    heads = _heads(by)
    lines = csv_lines([heads, *([row[name] for name in heads] for row in rows)])
    name = f"usage-{span['start']}-{span['end']}.csv"
    return ApiResponse(body=lines, content_type=CSV, headers=(attached(name),))


_COLUMNS: dict[str, dict[str, JsonShape]] = {
    "day": {"date": Text()},
    "user": {"user_id": Nullable(Integer()), "username": Text()},
    "key": {"api_key_id": Nullable(Integer()), "api_key_name": Text()},
    "model": {"model_id": Integer(), "model_name": Text()},
    "operation": {"operation": Text()},
}


def _heads(by: tuple[str, ...]) -> list[str]:
    return [*(name for group in by for name in _COLUMNS[group]), *_COUNTS, "last_used_at"]


def _row(call: ApiCall, one: UsageGroup, by: tuple[str, ...]) -> Doc:
    made: Doc = {}
    for group in by:
        match group:
            case "day":
                made["date"] = None if one.date is None else one.date.isoformat()
            case "user":
                made |= {"user_id": _id(one.user_id), "username": one.username}
            case "key":
                key = call.snapshot.api_keys.get(one.api_key_id or -1)
                made |= {"api_key_id": _id(one.api_key_id), "api_key_name": "" if key is None else key.name}
            case "model":
                made |= {"model_id": one.model_id, "model_name": one.model_name}
            case "operation":
                made["operation"] = one.operation
    counts: dict[str, Any] = {name: getattr(one, name) for name in _COUNTS}
    return {**made, **counts, "last_used_at": one.last_used_at}


def _id(key: int | None) -> int | None:
    """Requests without an account or key are on record with -1."""
    return None if key == -1 else key


ROUTES = tagged(
    "usage",
    (
        ApiRoute(
            method="GET",
            path="/v1/usage",
            summary="Usage summed by day, user, key, model or operation; of others only for administrators",
            handler=_usage,
            allow=PEOPLE,
            query=(
                QueryParameter(
                    name="by",
                    shape=Text(longest=64),
                    note=f"By what to sum, with commas: {', '.join(f'`{name}`' for name in GROUPS)}; by default "
                    f"`{','.join(_USUAL)}`. Empty: one sum of all.",
                ),
                *SPAN,
                QueryParameter(name="format", shape=Text(longest=8), note="`json` (default) or `csv`."),
            ),
            answer=Document(
                name="UsageSums",
                fields={
                    "items": Array(
                        Document(
                            name="UsageGroup",
                            fields={
                                **{
                                    name: shape
                                    for group in _COLUMNS.values()
                                    for name, shape in group.items()
                                },
                                **dict.fromkeys(_COUNTS, Integer()),
                                "last_used_at": Nullable(Instant()),
                            },
                            note="With the fields of what is summed by; user_id and api_key_id are null for requests "
                            "without one. last_used_at is accurate to some seconds.",
                        )
                    )
                },
            ),
        ),
    ),
)
