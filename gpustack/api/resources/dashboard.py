"""The dashboard: counts, load, and use by user and model."""

from __future__ import annotations

import functools
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, date, datetime, time, timedelta
from typing import Any

from gpustack.domain.instance import Claim, claims_of
from gpustack.domain.model import Model
from gpustack.server.cluster_load import ClusterLoad, LoadSample, cluster_load
from gpustack.store import usage_history

from ..problems import MalformedRequest
from ..request import is_whole
from ..route import ApiCall, ApiResponse, ApiRoute, tagged
from ..shape import Array, Document, Instant, Integer, JsonShape, Nullable, Number, QueryParameter, Text
from ..view import Doc, fields_of

DEFAULT_DAYS = 31
MOST_DAYS = 3660
MOST_ROWS = 100_000
"""Rows of usage in one answer, which has no pages; whoever wants more asks for fewer days."""
_TOP = 10
_MOST_IDS = 200
_ALL_MODELS = 10_000


def _timestamp(day: date) -> int:
    return int(datetime.combine(day, time(), UTC).timestamp())


def _load(load: ClusterLoad) -> Doc:
    return {"cpu": load.cpu, "ram": load.ram, "gpu": load.gpu, "vram": load.vram}


def _load_history(samples: Iterable[LoadSample]) -> Doc:
    made: Doc = {name: [] for name in ("cpu", "ram", "gpu", "vram")}
    for sample in samples:
        for name, value in _load(sample.load).items():
            if value is not None:
                made[name].append({"timestamp": int(sample.at.timestamp()), "value": value})
    return made


def _histories(days: Sequence[usage_history.DailyUsage]) -> Doc:
    def line(field: str) -> list[Doc]:
        return [{"timestamp": _timestamp(day.date), "value": getattr(day, field)} for day in days]

    return {
        "api_request_history": line("request_count"),
        "prompt_token_history": line("prompt_token_count"),
        "completion_token_history": line("completion_token_count"),
    }


async def _dashboard(call: ApiCall) -> ApiResponse:
    context, snapshot = call.context, call.snapshot
    today = context.clock().date()
    window = (today - timedelta(days=DEFAULT_DAYS - 1), today)
    days = await context.store.query(functools.partial(usage_history.daily, start=window[0], end=window[1]))
    users = await context.store.query(
        functools.partial(usage_history.by_user, start=window[0], end=window[1], limit=_TOP)
    )
    models = await context.store.query(
        functools.partial(usage_history.by_model, start=window[0], end=window[1], limit=_ALL_MODELS)
    )
    samples = () if context.usage.load is None else context.usage.load.samples
    return ApiResponse(
        document={
            "resource_counts": {
                "worker_count": len(snapshot.workers),
                "gpu_count": sum(len(w.status.gpu_devices) for w in snapshot.workers.values()),
                "model_count": len(snapshot.models),
                "model_instance_count": len(snapshot.instances),
            },
            "system_load": {
                "current": _load(cluster_load(snapshot, context.workers.live)),
                "history": _load_history(samples),
            },
            "model_usage": {
                **_histories(days),
                "top_users": [
                    {
                        "user_id": one.id,
                        "username": one.name,
                        "prompt_token_count": one.prompt_token_count,
                        "completion_token_count": one.completion_token_count,
                    }
                    for one in users
                ],
            },
            "active_models": _active(
                call, {one.id: one.prompt_token_count + one.completion_token_count for one in models}
            ),
        }
    )


def _active(call: ApiCall, tokens: dict[int, int]) -> list[Doc]:
    """The models of which something is deployed, those that gave most tokens first."""
    snapshot = call.snapshot
    deployed = [model for model in snapshot.models.values() if snapshot.instances_of(model.id)]
    deployed.sort(key=lambda model: (-tokens.get(model.id, 0), model.name))
    return [_active_model(call, model, tokens.get(model.id, 0)) for model in deployed[:_TOP]]


def _active_model(call: ApiCall, model: Model, tokens: int) -> Doc:
    instances = call.snapshot.instances_of(model.id)
    claims: list[Claim] = []
    for instance in instances:
        if instance.placement is not None:
            claims += [claim for _, claim in claims_of(instance.placement)]
    return {
        "id": model.id,
        "name": model.name,
        "categories": list(model.categories),
        "resource_claim": {
            "ram": sum(claim.ram for claim in claims),
            "vram": sum(sum(claim.vram.values()) for claim in claims),
        },
        "instance_count": len(instances),
        "token_count": tokens,
    }


# --- usage over a span of days


def _day(call: ApiCall, name: str, default: date, faults: list[str]) -> date:
    text = call.query.one(name)
    if not text:
        return default
    try:
        return date.fromisoformat(text)
    except ValueError:
        faults.append(f"{name}: must be a day like 2026-01-31")
        return default


def _ids(call: ApiCall, name: str, faults: list[str]) -> list[int]:
    texts = [text for text in call.query.many(name, f"{name}[]") if text]
    if not all(map(is_whole, texts)) or len(texts) > _MOST_IDS:
        faults.append(f"{name}: must be at most {_MOST_IDS} whole numbers")
        return []
    return [int(text) for text in texts]


def span_of(call: ApiCall) -> dict[str, Any]:
    """The days and ids a query names. Raises ``MalformedRequest`` with every fault."""
    faults: list[str] = []
    end = _day(call, "end_date", call.context.clock().date(), faults)
    earliest = end - timedelta(days=min(DEFAULT_DAYS - 1, (end - date.min).days))
    start = _day(call, "start_date", earliest, faults)
    models, users = _ids(call, "model_ids", faults), _ids(call, "user_ids", faults)
    if not faults and start > end:
        faults.append("start_date: must not be after end_date")
    elif not faults and (end - start).days >= MOST_DAYS:
        faults.append(f"start_date: at most {MOST_DAYS} days can be asked for at once")
    if faults:
        raise MalformedRequest(*faults)
    return {"start": start, "end": end, "model_ids": models, "user_ids": users}


async def _usage(call: ApiCall) -> ApiResponse:
    found = await call.context.store.query(
        functools.partial(usage_history.rows, **span_of(call), newest_first=True, limit=MOST_ROWS + 1)
    )
    if len(found) > MOST_ROWS:
        raise MalformedRequest(
            f"start_date: there are more than {MOST_ROWS} rows; ask for fewer days at once"
        )
    return ApiResponse(document={"items": [fields_of(row, _ROW) for row in found]})


async def _stats(call: ApiCall) -> ApiResponse:
    days = await call.context.store.query(functools.partial(usage_history.daily, **span_of(call)))
    return ApiResponse(document=_histories(days))


# --- as the document shows it

_POINT = Document(
    name="TimedValue", fields={"timestamp": Integer(), "value": Number()}, note="Seconds since 1970."
)
_COUNT_HISTORIES: Mapping[str, JsonShape] = {
    name: Array(_POINT)
    for name in ("api_request_history", "prompt_token_history", "completion_token_history")
}
_PERCENTS: Mapping[str, JsonShape] = {name: Nullable(Number()) for name in ("cpu", "ram", "gpu", "vram")}
_ROW: Mapping[str, JsonShape] = {
    "id": Integer(),
    "date": Text(),
    "user_id": Integer(),
    "username": Text(),
    "api_key_id": Integer(),
    "model_id": Integer(),
    "model_name": Text(),
    "operation": Text(),
    "prompt_token_count": Integer(),
    "completion_token_count": Integer(),
    "request_count": Integer(),
    "failed_count": Integer(),
    "created_at": Nullable(Instant()),
    "updated_at": Nullable(Instant()),
}
_DASHBOARD = Document(
    name="Dashboard",
    fields={
        "resource_counts": Document(
            name="ResourceCounts",
            fields={
                name: Integer()
                for name in ("worker_count", "gpu_count", "model_count", "model_instance_count")
            },
        ),
        "system_load": Document(
            name="SystemLoad",
            fields={
                "current": Document(name="LoadPercent", fields=_PERCENTS),
                "history": Document(name="LoadHistory", fields={name: Array(_POINT) for name in _PERCENTS}),
            },
            note="Percent, averaged over ready workers and their GPUs; null where nobody measured it.",
        ),
        "model_usage": Document(
            name="ModelUsageSummary",
            fields={
                **_COUNT_HISTORIES,
                "top_users": Array(
                    Document(
                        name="TopUser",
                        fields={
                            "user_id": Integer(),
                            "username": Text(),
                            "prompt_token_count": Integer(),
                            "completion_token_count": Integer(),
                        },
                    )
                ),
            },
        ),
        "active_models": Array(
            Document(
                name="ActiveModel",
                fields={
                    "id": Integer(),
                    "name": Text(),
                    "categories": Array(Text()),
                    "resource_claim": Document(name="ClaimSum", fields={"ram": Integer(), "vram": Integer()}),
                    "instance_count": Integer(),
                    "token_count": Integer(),
                },
            )
        ),
    },
    note="Usage is of the last 31 days (UTC), load of the last hour.",
)
SPAN = (
    QueryParameter(
        name="start_date", shape=Text(), note="First day, YYYY-MM-DD; 31 days before the end if not given."
    ),
    QueryParameter(name="end_date", shape=Text(), note="Last day, included; today (UTC) if not given."),
    QueryParameter(name="model_ids", shape=Integer(), many=True, note="Only these models."),
    QueryParameter(name="user_ids", shape=Integer(), many=True, note="Only these users."),
)

ROUTES = tagged(
    "dashboard",
    (
        ApiRoute(
            method="GET",
            path="/v1/dashboard",
            summary="Counts, load and usage at a glance",
            handler=_dashboard,
            answer=_DASHBOARD,
        ),
        ApiRoute(
            method="GET",
            path="/v1/dashboard/usage",
            summary="Usage by day, user, key, model and operation, the newest first",
            handler=_usage,
            query=SPAN,
            answer=Document(
                name="UsageRows", fields={"items": Array(Document(name="ModelUsage", fields=_ROW))}
            ),
        ),
        ApiRoute(
            method="GET",
            path="/v1/dashboard/usage/stats",
            summary="Requests and tokens by day",
            handler=_stats,
            query=SPAN,
            answer=Document(name="UsageStats", fields=_COUNT_HISTORIES),
        ),
    ),
)
