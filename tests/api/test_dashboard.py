"""The dashboard shows what there is and what was used, and unknown as unknown."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta

import attrs
import pytest

from gpustack.domain.device import DeviceCore
from gpustack.domain.usage import ModelUsage, Operation
from gpustack.domain.worker import Condition, Cpu, WorkerState
from gpustack.server.cluster_load import KEPT, LoadHistory, cluster_load

from .world import CARD, STATUS, World

TODAY = date(2026, 1, 2)
CHAT = ModelUsage(
    date=TODAY,
    user_id=1,
    api_key_id=-1,
    model_id=1,
    operation=Operation.CHAT_COMPLETION,
    username="ada",
    model_name="qwen",
    prompt_token_count=10,
    completion_token_count=5,
    request_count=2,
)
BUSY = attrs.evolve(
    STATUS,
    cpu=Cpu(total=8, utilization_rate=50.0),
    gpu_devices=(
        attrs.evolve(CARD, core=DeviceCore(utilization_rate=30.0)),
        attrs.evolve(CARD, index=1, memory=attrs.evolve(CARD.memory, used=CARD.memory.total)),
    ),
)


def stamp(day: date) -> int:
    return int(datetime(day.year, day.month, day.day, tzinfo=UTC).timestamp())


async def used(world: World, *rows: ModelUsage) -> None:
    await world.store.write(lambda tx: tx.add_usage(rows))


async def test_an_empty_cluster_counts_nothing_and_knows_no_load(world: World) -> None:
    shown = await world.get("/v1/dashboard")
    assert set(shown["resource_counts"].values()) == {0}
    assert shown["system_load"]["current"] == {"cpu": None, "ram": None, "gpu": None, "vram": None}
    assert shown["system_load"]["history"] == {"cpu": [], "ram": [], "gpu": [], "vram": []}
    assert shown["active_models"] == shown["model_usage"]["top_users"] == []


async def test_the_load_is_the_mean_of_what_ready_workers_measured(world: World) -> None:
    await world.worker("busy", status=BUSY)
    await world.worker("silent")
    gone = Condition(state=WorkerState.UNREACHABLE)
    await world.worker("gone", status=attrs.evolve(BUSY, cpu=Cpu(utilization_rate=100.0)), condition=gone)
    load = cluster_load(world.store.snapshot, world.context.workers.live)
    assert (load.cpu, load.ram, load.gpu, load.vram) == (50.0, 1.56, 30.0, 100.0)
    assert (await world.get("/v1/dashboard"))["system_load"]["current"]["cpu"] == 50.0


async def test_an_hour_of_load_is_kept_and_no_more(world: World) -> None:
    history = LoadHistory(lambda: world.store.snapshot, world.context.workers.live, world.clock)
    history.sample()
    assert not history.samples, "nothing is known yet"
    await world.worker("busy", status=BUSY)
    for _ in range(KEPT + 5):
        world.clock.forward(60)
        history.sample()
    shown = (await world.rebuilt(load=history).get("/v1/dashboard"))["system_load"]["history"]["cpu"]
    assert len(shown) == KEPT
    assert shown[-1] == {"timestamp": int(world.clock().timestamp()), "value": 50.0}
    assert shown[0]["timestamp"] == shown[-1]["timestamp"] - 60 * (KEPT - 1)


async def test_models_and_users_that_use_most_come_first(world: World) -> None:
    worker, _ = await world.worker("node-a")
    quiet, loud, idle = [await world.model(name) for name in ("quiet", "loud", "idle")]
    await world.instance(quiet, "quiet-1", worker)
    await world.instance(loud, "loud-1", worker)
    await world.instance(loud, "loud-2")
    bob = {"user_id": 2, "username": "bob"}
    await used(
        world,
        attrs.evolve(CHAT, model_id=quiet.id),
        attrs.evolve(CHAT, model_id=loud.id, prompt_token_count=500, **bob),
        attrs.evolve(CHAT, model_id=loud.id, date=TODAY - timedelta(days=31), prompt_token_count=10**6),
        attrs.evolve(CHAT, model_id=4711, prompt_token_count=10**6, user_id=-1),
    )
    shown = await world.get("/v1/dashboard")
    assert [(one["name"], one["token_count"], one["instance_count"]) for one in shown["active_models"]] == [
        ("loud", 505, 2),
        ("quiet", 15, 1),
    ]
    assert shown["active_models"][0]["resource_claim"] == {"ram": 1 << 30, "vram": 5 << 30}
    assert idle.name not in [one["name"] for one in shown["active_models"]]
    assert [one["username"] for one in shown["model_usage"]["top_users"]] == ["bob", "ada"]
    assert shown["model_usage"]["api_request_history"] == [{"timestamp": stamp(TODAY), "value": 6}]
    assert shown["resource_counts"] == {
        "worker_count": 1,
        "gpu_count": 1,
        "model_count": 3,
        "model_instance_count": 3,
    }


async def test_usage_is_listed_newest_first_and_selected(world: World) -> None:
    await used(
        world,
        CHAT,
        attrs.evolve(CHAT, date=TODAY - timedelta(days=1), model_id=2),
        attrs.evolve(CHAT, date=TODAY - timedelta(days=2), model_id=3, user_id=2),
        attrs.evolve(CHAT, date=TODAY - timedelta(days=31), model_id=9),
    )

    async def models(query: str) -> list[int]:
        return [row["model_id"] for row in (await world.get(f"/v1/dashboard/usage?{query}"))["items"]]

    assert await models("") == [1, 2, 3]
    assert await models("model_ids=2&model_ids=3&user_ids=2") == [3]
    assert await models("start_date=2025-12-01&end_date=2026-01-01") == [2, 3, 9]
    (row,) = (await world.get("/v1/dashboard/usage?model_ids=1"))["items"]
    assert (row["date"], row["operation"], row["username"]) == ("2026-01-02", "chat_completion", "ada")
    assert row["request_count"] == 2


async def test_sums_are_shown_by_day(world: World) -> None:
    yesterday = TODAY - timedelta(days=1)
    await used(world, CHAT, attrs.evolve(CHAT, api_key_id=3), attrs.evolve(CHAT, date=yesterday, model_id=2))
    shown = await world.get("/v1/dashboard/usage/stats")
    assert shown["prompt_token_history"] == [
        {"timestamp": stamp(yesterday), "value": 10},
        {"timestamp": stamp(TODAY), "value": 20},
    ]
    only = await world.get("/v1/dashboard/usage/stats?model_ids=2")
    assert only["completion_token_history"] == [{"timestamp": stamp(yesterday), "value": 5}]


@pytest.mark.parametrize(
    "query",
    [
        "start_date=yesterday",
        "end_date=2026-13-01",
        "start_date=2026-01-02&end_date=2026-01-01",
        "start_date=0001-01-01",
        "model_ids=qwen",
    ],
)
async def test_a_wrong_span_is_refused(world: World, query: str) -> None:
    answer = await world.ask("GET", f"/v1/dashboard/usage?{query}", world.admin)
    assert (answer.status_code, answer.json()["reason"]) == (422, "Invalid")


async def test_the_first_day_there_is_can_be_the_last_one_asked_for(world: World) -> None:
    assert (await world.get("/v1/dashboard/usage?end_date=0001-01-01"))["items"] == []


@pytest.mark.parametrize("path", ["", "/usage", "/usage/stats"])
async def test_only_administrators_see_it(world: World, path: str) -> None:
    user = await world.user("ada")
    assert (await world.ask("GET", f"/v1/dashboard{path}", user)).status_code == 403
