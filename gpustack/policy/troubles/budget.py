"""Budgets of tokens that are used up, or nearly."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import attrs

from gpustack.domain.access import Limits
from gpustack.domain.usage import BudgetDraw
from gpustack.policy.attention import (
    ActionKind,
    AttentionLook,
    Trouble,
    TroubleAction,
    TroubleObject,
    TroubleSeverity,
)
from gpustack.policy.usage_limit import LimitKind, period_name
from gpustack.text import counted

KIND = "budget"
_WORDS = {LimitKind.DAY: "day", LimitKind.MONTH: "month"}
_NOUNS = {
    "key": ("API key", "api-key", "/v1/api-keys"),
    "user": ("account", "user", "/v1/users"),
    "model": ("model", "model", "/v1/models"),
}
"""In sentences, as the object, and the path."""
_NEARLY = 0.95
"""Of what is left then a request may already ask for more: it is refused."""


def find(look: AttentionLook) -> Iterator[Trouble]:
    """One for each budget of which all, or nearly all, is drawn."""
    periods = {period_name(kind, look.now): kind for kind in _WORDS}
    for draw in look.snapshot.all(BudgetDraw).values():
        kind = periods.get(draw.period)
        word, _, key = draw.subject.partition(":")
        record = None if kind is None else _record(look, word, key)
        limits = None if record is None else record.limits
        if kind is None or record is None or limits is None:
            continue
        limit = getattr(limits, kind.value)
        if limit and draw.drawn >= _NEARLY * limit:  # with a limit of 0 nothing is to be used
            yield _trouble(draw, kind, record, limits, word)


def more(count: int) -> str:
    return f"{counted(count, 'more budget')} of tokens are used up"


def _record(look: AttentionLook, word: str, key: str) -> Any:
    tables: Mapping[str, Mapping[int, Any]] = {
        "key": look.snapshot.api_keys,
        "user": look.snapshot.users,
        "model": look.snapshot.models,
    }
    return tables.get(word, {}).get(int(key)) if key.isdigit() else None


def _trouble(draw: BudgetDraw, kind: LimitKind, record: Any, limits: Limits, word: str) -> Trouble:
    noun, object_kind, path = _NOUNS[word]
    name = record.username if word == "user" else record.name
    limit, span = getattr(limits, kind.value), f"for this {_WORDS[kind]}"
    is_over = draw.drawn >= limit
    whose = f"the {limit} tokens of {noun} {name} {span}"
    raised = {**attrs.asdict(limits), kind.value: limit * 2}
    return Trouble(
        id=f"{KIND}:{draw.subject}:{_WORDS[kind]}",
        kind=KIND,
        severity=TroubleSeverity.WARNING if is_over else TroubleSeverity.NOTICE,
        text=f"T{whose[1:]} are used up" if is_over else f"Of {whose} {limit - draw.drawn} are left",
        since=draw.updated_at,
        object=TroubleObject(kind=object_kind, id=record.id, name=name),
        actions=(
            TroubleAction(
                kind=ActionKind.RAISE_BUDGET,
                label=f"Allow {limit * 2} a {_WORDS[kind]}",
                method="PUT",
                path=f"{path}/{record.id}",
                body={"limits": raised},
                confirm=f"Double the tokens of {noun} {name} for each {_WORDS[kind]}?",
            ),
        ),
    )
