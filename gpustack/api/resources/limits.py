"""What is left of limits: of one's own account and keys, for administrators of all."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from typing import Any

from gpustack.domain.access import Limits
from gpustack.domain.usage import BudgetDraw
from gpustack.policy.usage_limit import LimitKind, period_ends_in, period_name

from ..route import ADMIN, PEOPLE, ApiCall, ApiResponse, ApiRoute, tagged
from ..shape import AttrsObject, Document, Instant, Integer, Nullable
from ..view import Doc, plain
from . import api_keys, models, users

_BUDGET = Document(
    name="Budget",
    fields={"limit": Integer(), "remaining": Integer(), "ends_at": Instant()},
    note="remaining: tokens, without what requests under way may use and other servers hold.",
)
_ALLOWANCE = Document(
    name="Allowance",
    fields={"limits": Nullable(AttrsObject(Limits)), "day": Nullable(_BUDGET), "month": Nullable(_BUDGET)},
    note="What may be used, and what is left of the budgets of today and this month.",
)


def _allowance(call: ApiCall, subject: str, limits: Limits | None) -> Doc:
    given = limits or Limits()
    return {
        "limits": plain(limits),
        "day": _budget(call, subject, LimitKind.DAY, given.tokens_per_day),
        "month": _budget(call, subject, LimitKind.MONTH, given.tokens_per_month),
    }


def _budget(call: ApiCall, subject: str, kind: LimitKind, limit: int | None) -> Doc | None:
    if limit is None:
        return None
    now = call.context.clock()
    return {
        "limit": limit,
        "remaining": _remaining(call, subject, kind, limit),
        "ends_at": now + timedelta(seconds=period_ends_in(kind, now)),
    }


def _remaining(call: ApiCall, subject: str, kind: LimitKind, limit: int) -> int:
    budgets = call.context.usage.budgets
    if budgets is not None:
        return budgets.remaining(budgets.block(subject, kind, limit))
    row = call.snapshot.find(BudgetDraw, subject=subject, period=period_name(kind, call.context.clock()))
    return max(limit - (0 if row is None else row.drawn), 0)


def _of(word: str, found: Callable[[ApiCall], Any]) -> Callable[[ApiCall], Any]:
    async def handler(call: ApiCall) -> ApiResponse:
        record = found(call)
        return ApiResponse(document=_allowance(call, f"{word}:{record.id}", record.limits))

    return handler


ROUTES = tagged(
    "limits",
    (
        ApiRoute(
            method="GET",
            path="/v1/users/me/limits",
            summary="Tell what is left of one's own limits",
            handler=_of("user", lambda call: call.account),
            allow=PEOPLE,
            answer=_ALLOWANCE,
        ),
        ApiRoute(
            method="GET",
            path="/v1/api-keys/{id}/limits",
            summary="Tell what is left of the limits of an API key",
            handler=_of("key", api_keys.RESOURCE.item),
            allow=PEOPLE,
            answer=_ALLOWANCE,
        ),
        ApiRoute(
            method="GET",
            path="/v1/users/{id}/limits",
            summary="Tell what is left of the limits of an account",
            handler=_of("user", users.RESOURCE.item),
            allow=ADMIN,
            answer=_ALLOWANCE,
        ),
        ApiRoute(
            method="GET",
            path="/v1/models/{id}/limits",
            summary="Tell what is left of the limits of a model",
            handler=_of("model", models.RESOURCE.item),
            allow=ADMIN,
            answer=_ALLOWANCE,
        ),
    ),
)
