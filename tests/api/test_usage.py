"""Usage summed by what one asks for, as JSON and CSV; people see their own."""

from __future__ import annotations

import csv
import io
from datetime import date
from typing import Any

from gpustack.domain.usage import ModelUsage, Operation

from .world import World


async def test_usage_is_summed_by_what_one_asks_for(world: World) -> None:
    ada, bob = await world.user("ada"), await world.user("=bob")
    keys = {key.user_id: key.id for key in world.store.snapshot.api_keys.values()}

    def row(day: int, user: Any, model: int, tokens: int, **more: Any) -> ModelUsage:
        fields: dict[str, Any] = {
            "date": date(2026, 1, day),
            "user_id": user.id,
            "username": user.username,
            "api_key_id": keys[user.id],
            "model_id": model,
            "model_name": f"m{model}",
            "operation": Operation.CHAT_COMPLETION,
            "prompt_token_count": tokens,
            "completion_token_count": 1,
            "request_count": 1,
            **more,
        }
        return ModelUsage(**fields)

    rows = [row(1, ada, 1, 10), row(2, ada, 1, 20), row(2, bob, 2, 5, failed_count=1)]
    await world.store.write(lambda tx: tx.add_usage(rows))

    async def asked(by: str, who: Any = None) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = (await world.get(f"/v1/usage?by={by}", who))["items"]
        return found

    assert [(one["username"], one["prompt_token_count"]) for one in await asked("user")] == [
        ("ada", 30),
        ("=bob", 5),
    ]
    assert [(one["date"], one["request_count"]) for one in await asked("day")] == [
        ("2026-01-02", 2),
        ("2026-01-01", 1),
    ]
    assert [(one["model_name"], one["failed_count"]) for one in await asked("model")] == [
        ("m1", 0),
        ("m2", 1),
    ]
    assert {(one["api_key_name"], one["api_key_id"]) for one in await asked("key")} == {
        ("first", keys[ada.id]),
        ("first", keys[bob.id]),
    }
    (whole,) = await asked("")
    assert (whole["prompt_token_count"], whole["last_used_at"]) == (35, "2026-01-02T03:04:05Z")
    assert len((await world.get("/v1/usage"))["items"]) == 3
    assert [one["username"] for one in await asked("user", bob)] == ["=bob"], "and of others nothing"
    (mine,) = (await world.get(f"/v1/usage?by=user&user_ids={ada.id}", bob))["items"]
    assert mine["username"] == "=bob"

    answer = await world.ask("GET", "/v1/usage?format=csv", world.admin)
    assert answer.headers["content-type"] == "text/csv; charset=utf-8"
    assert "usage-2025-12-03-2026-01-02.csv" in answer.headers["content-disposition"]
    table = list(csv.DictReader(io.StringIO(answer.text)))
    assert [(one["date"], one["username"], one["prompt_token_count"]) for one in table] == [
        ("2026-01-02", "ada", "20"),
        ("2026-01-02", "'=bob", "5"),
        ("2026-01-01", "ada", "10"),
    ]
    for query, fault in (("by=team", "there is no 'team'"), ("format=xml", "json, csv")):
        wrong = await world.ask("GET", f"/v1/usage?{query}", world.admin)
        assert wrong.status_code in (400, 422)
        assert fault in wrong.text
