"""The mapping of engines' metrics over HTTP: shown to everybody who is let in, replaced by administrators alone."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from gpustack.metrics.mapping import default_map
from gpustack.metrics.mapping_file import FILE, MetricMapFile

from .world import World

OWN: dict[str, Any] = {
    "gpustack_metrics": {"gpustack:depth": {"type": "Gauge", "description": "How deep."}},
    "runtime_mapping": {"custom": {"*": {"mine:depth": "gpustack:depth"}}},
}


@pytest.fixture
def here(world: World, tmp_path: Path) -> World:
    return world.rebuilt(metrics=MetricMapFile.within(tmp_path))


async def test_both_show_what_gpustack_comes_with_at_first(here: World) -> None:
    expected = default_map().document()
    assert await here.get("/v1/metrics/default-config") == expected
    assert await here.get("/v1/metrics/config") == expected
    assert (
        expected["runtime_mapping"]["vllm"]["*"]["vllm:num_requests_running"]
        == "gpustack:num_requests_running"
    )


async def test_what_an_administrator_puts_is_what_is_shown_and_kept(here: World, tmp_path: Path) -> None:
    answer = await here.ask("POST", "/v1/metrics/config", here.admin, json=OWN)
    assert (answer.status_code, answer.json()) == (200, {"status": "ok"})
    assert await here.get("/v1/metrics/config") == OWN
    assert await here.get("/v1/metrics/default-config") == default_map().document()
    assert "mine:depth" in (tmp_path / FILE).read_text()
    await here.ask("POST", "/v1/metrics/config", here.admin, json={})
    assert await here.get("/v1/metrics/config") == default_map().document()


async def test_users_and_workers_may_look_and_not_change(here: World) -> None:
    user, (_, credential) = await here.user("ann"), await here.worker("w1")
    for who in (user, credential):
        assert (await here.ask("GET", "/v1/metrics/config", who)).status_code == 200
        assert (await here.ask("GET", "/v1/metrics/default-config", who)).status_code == 200
        assert (await here.ask("POST", "/v1/metrics/config", who, json=OWN)).status_code == 403
    assert (await here.ask("GET", "/v1/metrics/config")).status_code == 401
    assert (await here.ask("POST", "/v1/metrics/config", json=OWN)).status_code == 401
    assert await here.get("/v1/metrics/config") == default_map().document()


async def test_every_fault_of_a_mapping_is_answered(here: World) -> None:
    wrong = {"gpustack_metrics": {"a b": {}}, "runtime_mapping": {"vllm": {"lately": {}}}}
    answer = await here.ask("POST", "/v1/metrics/config", here.admin, json=wrong)
    assert answer.status_code == 422
    assert "a b" in answer.text and "lately" in answer.text
    for body in (b"", b"gpustack_metrics: {}", b"\xff"):
        refused = await here.ask("POST", "/v1/metrics/config", here.admin, content=body)
        assert refused.status_code == 400
    assert await here.get("/v1/metrics/config") == default_map().document()
