"""What runs have shown can be looked at by administrators, and forgotten."""

from __future__ import annotations

from datetime import UTC, datetime

from gpustack.domain.memory_use import MemoryRecord, MemorySample

from .world import World

SAMPLE = MemorySample(
    at=datetime(2026, 1, 2, tzinfo=UTC),
    instance_id=7,
    worker_id=1,
    estimated={"devices compute": 100},
    measured={"devices compute": 120},
)
RECORD = MemoryRecord(
    key="k",
    engine="llama.cpp",
    build="9300",
    architecture="llama",
    device="H200",
    settings="ctx=8192",
    samples=(SAMPLE,),
)


async def test_an_administrator_sees_what_was_learnt_and_can_have_it_forgotten(world: World) -> None:
    kept = await world.store.write(lambda tx: tx.insert(RECORD))
    [shown] = (await world.get("/v1/memory-records?engine=llama.cpp"))["items"]
    assert (shown["build"], shown["architecture"], shown["device"]) == ("9300", "llama", "H200")
    assert shown["samples"][0]["measured"] == {"devices compute": 120}
    assert "key" not in shown
    assert (await world.get("/v1/memory-records?engine=vllm"))["items"] == []
    assert (await world.ask("DELETE", f"/v1/memory-records/{kept.id}", world.admin)).status_code == 200
    assert (await world.get("/v1/memory-records"))["items"] == []
    assert (await world.ask("POST", "/v1/memory-records", world.admin, json={})).status_code in (
        403,
        404,
        405,
    )
