"""What was used, grouped as GPUStack 2.x groups it: sums over the rows of the dashboard's usage."""

from __future__ import annotations

import functools
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import date, timedelta
from typing import Any

import attrs

from gpustack.domain.access import ApiKey, User
from gpustack.domain.model import Model
from gpustack.domain.snapshot import Snapshot
from gpustack.domain.usage import ModelUsage
from gpustack.policy.access import READING
from gpustack.store import usage_history

from ...listing import PageRange, page_document
from ...problems import MalformedRequest
from ...resources.dashboard import MOST_DAYS, MOST_ROWS
from ...route import ApiCall, ApiResponse, ApiRoute
from ...shape import AnyJson, Array, Document, Integer, Nullable, QueryParameter, Text
from ...view import Doc

_METRICS = ("input_tokens", "output_tokens", "input_cached_tokens", "total_tokens", "api_requests")
_LARGEST_PAGE = 1000


@attrs.frozen(kw_only=True)
class _Dimension:
    """By what usage can be grouped."""

    label: str
    key: Callable[[ModelUsage], Any]
    name: Callable[[ModelUsage, Snapshot], str]
    id_field: str
    name_field: str
    known: Callable[[int, Snapshot], bool]

    def shown(self, row: ModelUsage, snapshot: Snapshot) -> Doc:
        """What identifies the row's user, key or model: its name then, and its number if it is there still."""
        key, name = self.key(row), self.name(row, snapshot)
        known = self.known(key, snapshot)
        return {
            "identity": {
                "value": {self.name_field: name},
                "current": {self.id_field: key} if known else None,
            },
            "label": name,
            "deleted": not known,
        }


def _key_name(row: ModelUsage, snapshot: Snapshot) -> str:
    key = snapshot.get(ApiKey, row.api_key_id)
    return f"key {row.api_key_id}" if key is None else key.name


_MODEL = _Dimension(
    label="Model",
    key=lambda row: row.model_id,
    name=lambda row, snapshot: row.model_name,
    id_field="model_id",
    name_field="model_name",
    known=lambda key, snapshot: key in snapshot.all(Model),
)
_DIMENSIONS: Mapping[str, _Dimension] = {
    "model": _MODEL,
    "route": _MODEL,
    "user": _Dimension(
        label="User",
        key=lambda row: row.user_id,
        name=lambda row, snapshot: row.username,
        id_field="user_id",
        name_field="user_name",
        known=lambda key, snapshot: key in snapshot.all(User),
    ),
    "api_key": _Dimension(
        label="API key",
        key=lambda row: row.api_key_id,
        name=_key_name,
        id_field="api_key_id",
        name_field="api_key_name",
        known=lambda key, snapshot: key in snapshot.all(ApiKey),
    ),
}
_FILTERS = {"models": "model", "users": "user", "api_keys": "api_key"}
_STEPS: Mapping[str, Callable[[date], date]] = {
    "day": lambda day: day,
    "week": lambda day: day - timedelta(days=min(day.weekday(), (day - date.min).days)),
    "month": lambda day: day.replace(day=1),
}


async def _rows(call: ApiCall, given: Mapping[str, Any]) -> list[ModelUsage]:
    """The rows of the days and filters of a body. Raises ``MalformedRequest``."""
    try:
        start, end = (date.fromisoformat(given[name]) for name in ("start_date", "end_date"))
    except ValueError as error:
        raise MalformedRequest("start_date, end_date: must be days like 2026-01-31") from error
    if not 0 <= (end - start).days < MOST_DAYS:
        raise MalformedRequest(f"end_date: must be from 0 to {MOST_DAYS - 1} days after start_date")
    found = await call.context.store.query(
        functools.partial(usage_history.rows, start=start, end=end, newest_first=True, limit=MOST_ROWS + 1)
    )
    if len(found) > MOST_ROWS:
        raise MalformedRequest(
            f"start_date: there are more than {MOST_ROWS} rows; ask for fewer days at once"
        )
    for name, of in _FILTERS.items():
        wanted = (given.get("filters") or {}).get(name)
        if wanted:
            dimension, (keys, names) = _DIMENSIONS[of], _identities(_DIMENSIONS[of], wanted)
            found = [
                row
                for row in found
                if dimension.key(row) in keys or (names and dimension.name(row, call.snapshot) in names)
            ]
    return found


def _identities(dimension: _Dimension, wanted: Iterable[Any]) -> tuple[set[int], set[str]]:
    """The numbers, and of those without one the names, that a filter chooses: looked up once, not for each row."""
    keys, names = set[int](), set[str]()
    for one in wanted:
        identity = _object(one, "identity")
        current, value = _object(identity, "current"), _object(identity, "value")
        key, name = current.get(dimension.id_field), value.get(dimension.name_field)
        if isinstance(key, int):
            keys.add(key)
        if not current and isinstance(name, str):
            names.add(name)
    return keys, names


def _object(given: Any, name: str) -> Doc:
    found = given.get(name) if isinstance(given, dict) else None
    return found if isinstance(found, dict) else {}


def _sums(rows: Sequence[ModelUsage]) -> Doc:
    read, written = (
        sum(row.prompt_token_count for row in rows),
        sum(row.completion_token_count for row in rows),
    )
    requests = sum(row.request_count for row in rows)
    return {
        "input_tokens": read,
        "output_tokens": written,
        "input_cached_tokens": 0,
        "total_tokens": read + written,
        "api_requests": requests,
        "avg_tokens_per_request": (read + written) / requests if requests else 0.0,
        "models_called": len({row.model_id for row in rows}),
        "api_keys_used": len({row.api_key_id for row in rows if row.api_key_id >= 0}),
        "last_active": max((row.date for row in rows), default=None),
    }


async def _breakdown(call: ApiCall) -> ApiResponse:
    given = call.document
    by, step = list(given["group_by"]), given.get("granularity") or "day"
    known = ("date", *_DIMENSIONS)
    if not by or any(name not in known for name in by):
        raise MalformedRequest(f"group_by: must name some of {', '.join(known)}")
    if step not in _STEPS:
        raise MalformedRequest(f"granularity: must be one of {', '.join(_STEPS)}")
    groups: defaultdict[tuple[Any, ...], list[ModelUsage]] = defaultdict(list)
    for row in await _rows(call, given):
        key = tuple(_STEPS[step](row.date) if name == "date" else _DIMENSIONS[name].key(row) for name in by)
        groups[key].append(row)
    items = [
        {**_shown(by, key, rows[0], call.snapshot), **_sums(rows)} for key, rows in sorted(groups.items())
    ]
    page = PageRange(number=given.get("page") or 1, size=min(given.get("perPage") or 20, _LARGEST_PAGE))
    document = page_document(page.cut(_ordered(items, given.get("sort_by"))), page, len(items))
    return ApiResponse(document={"group_by": by, "granularity": given.get("granularity"), **document})


def _shown(by: Sequence[str], key: Sequence[Any], row: ModelUsage, snapshot: Snapshot) -> Doc:
    made: Doc = {}
    for name, value in zip(by, key, strict=True):
        if name == "date":
            made[name] = {"value": value, "label": value.isoformat(), "deleted": False}
        else:
            made[name] = _DIMENSIONS[name].shown(row, snapshot)
    return made


def _ordered(items: list[Doc], sort_by: str | None) -> list[Doc]:
    for field in reversed((sort_by or "-total_tokens").split(",")[:8]):
        name = field.strip().removeprefix("-")
        descending = field.strip().startswith("-")
        if name == "date":
            items = sorted(
                items, key=lambda item: str((item.get("date") or {}).get("label")), reverse=descending
            )
        elif name in _sums(()):
            items = sorted(items, key=lambda item: (item[name] is not None, item[name]), reverse=descending)
        else:
            raise MalformedRequest(f"sort_by: there is no field {name[:64]!r}")
    return items


async def _summary(call: ApiCall) -> ApiResponse:
    today = call.context.clock().date()
    days = {
        "start_date": call.query.one("start_date") or (today - timedelta(days=30)).isoformat(),
        "end_date": call.query.one("end_date") or today.isoformat(),
    }
    sums = _sums(await _rows(call, days))
    return ApiResponse(document={name: sums[name] for name in (*_METRICS, "models_called")})


async def _meta(call: ApiCall) -> ApiResponse:
    snapshot = call.snapshot
    named: Mapping[str, Iterable[tuple[int, str]]] = {
        "models": ((one.id, one.name) for one in snapshot.models.values()),
        "users": ((one.id, one.username) for one in snapshot.all(User).values()),
        "api_keys": ((one.id, one.name) for one in snapshot.all(ApiKey).values()),
    }
    filters = {}
    for name, pairs in named.items():
        dimension = _DIMENSIONS[_FILTERS[name]]
        filters[name] = [
            {
                "identity": {"value": {dimension.name_field: text}, "current": {dimension.id_field: key}},
                "label": text,
                "deleted": False,
            }
            for key, text in pairs
        ]
    groups = [{"key": "date", "label": "Date"}]
    groups += [{"key": name, "label": one.label} for name, one in _DIMENSIONS.items() if name != "route"]
    return ApiResponse(
        document={
            "metrics": [{"key": name, "label": name.replace("_", " ")} for name in _METRICS],
            "granularities": [{"key": name, "label": name} for name in _STEPS],
            "group_bys": groups,
            "filters": filters,
        }
    )


_BODY = Document(
    name="UsageBreakdown",
    fields={
        "start_date": Text(longest=32),
        "end_date": Text(longest=32),
        "filters": Nullable(
            Document(
                name="UsageFilters", fields=dict.fromkeys(_FILTERS, Nullable(Array(AnyJson(), 1000), ()))
            )
        ),
        "group_by": Array(Text(longest=32), 8),
        "granularity": Nullable(Text(longest=32)),
        "sort_by": Nullable(Text(longest=512)),
        "page": Nullable(Integer(least=1)),
        "perPage": Nullable(Integer(least=1)),
    },
    required=("start_date", "end_date", "group_by"),
)
ROUTES = (
    ApiRoute(method="GET", path="/v2/usage/meta", summary="What usage can be grouped by", handler=_meta),
    ApiRoute(
        method="POST",
        path="/v2/usage/breakdown",
        summary="Usage grouped by day, model, user or key",
        handler=_breakdown,
        body=_BODY,
        action="",
        scopes=READING,
    ),
    ApiRoute(
        method="GET",
        path="/v2/usage/summary",
        summary="The sums of some days",
        handler=_summary,
        query=tuple(QueryParameter(name=name, shape=Text()) for name in ("start_date", "end_date")),
    ),
)
