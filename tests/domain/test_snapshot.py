"""What is free on a worker, as the scheduler and people count it."""

from __future__ import annotations

import attrs

from gpustack.domain.artifact import ModelSource, SourceKind
from gpustack.domain.device import Device, DeviceMemory
from gpustack.domain.instance import Claim, ModelInstance, Placement, Subordinate
from gpustack.domain.snapshot import FreeMemory, Snapshot
from gpustack.domain.unit import GIB
from gpustack.domain.worker import Memory, SystemReserved, Worker, WorkerStatus

SOURCE = ModelSource(kind=SourceKind.LOCAL_PATH, local_path="/m.gguf")


def device(index: int, total: int | None = 24 * GIB, **fields: object) -> Device:
    memory = DeviceMemory(total=total)
    return attrs.evolve(Device(index=index, name="G", vendor="nvidia", type="cuda", memory=memory), **fields)


def worker(*devices: Device, ram: int | None = 64 * GIB, unified: bool = False) -> Worker:
    return Worker(
        id=1,
        name="w",
        worker_uuid="u",
        system_reserved=SystemReserved(ram=2 * GIB, vram=GIB),
        status=WorkerStatus(memory=Memory(total=ram, is_unified_memory=unified), gpu_devices=devices),
    )


def instance(number: int, placement: Placement | None) -> ModelInstance:
    return ModelInstance(
        id=number, name=f"m-{number}", model_id=1, model_name="m", source=SOURCE, placement=placement
    )


def snapshot(*instances: ModelInstance) -> Snapshot:
    return Snapshot(1, {"model_instances": {one.id: one for one in instances}})


def on(worker_id: int, ram: int = 0, **vram: int) -> Placement:
    claim = Claim(ram=ram * GIB, vram={int(name[3:]): size * GIB for name, size in vram.items()})
    return Placement(worker_id=worker_id, gpu_indexes=tuple(claim.vram), claim=claim)


def test_an_idle_worker_gives_all_but_its_reserve() -> None:
    assert snapshot(instance(1, None)).free(worker(device(0), device(1))) == FreeMemory(
        62 * GIB, {0: 23 * GIB, 1: 23 * GIB}
    )


def test_claims_are_taken_off_per_device_and_never_below_zero() -> None:
    found = snapshot(instance(1, on(1, ram=4, gpu0=20)), instance(2, on(1, ram=1, gpu0=20, gpu1=3)))
    assert found.free(worker(device(0), device(1))) == FreeMemory(57 * GIB, {0: 0, 1: 20 * GIB})


def test_claims_on_other_workers_do_not_count() -> None:
    assert snapshot(instance(1, on(2, ram=4, gpu0=20))).free(worker(device(0))) == FreeMemory(
        62 * GIB, {0: 23 * GIB}
    )


def test_the_share_of_a_subordinate_counts_on_its_worker() -> None:
    share = Subordinate(worker_id=1, gpu_indexes=(0,), claim=Claim(ram=GIB, vram={0: 5 * GIB}))
    placed = attrs.evolve(on(2, ram=8, gpu0=20), subordinates=(share,))
    found = snapshot(instance(1, placed))
    assert found.free(worker(device(0))) == FreeMemory(61 * GIB, {0: 18 * GIB})
    assert [claim for _, claim in found.claims_on(1)] == [share.claim]


def test_what_would_be_free_without_some_instances() -> None:
    found = snapshot(instance(1, on(1, ram=4, gpu0=10)), instance(2, on(1, gpu0=5)))
    assert found.free(worker(device(0)), without=frozenset({1})) == FreeMemory(62 * GIB, {0: 18 * GIB})


def test_an_instance_that_is_being_ended_still_holds_its_claim() -> None:
    from datetime import UTC, datetime

    ending = attrs.evolve(instance(1, on(1, gpu0=10)), deleted_at=datetime(2026, 1, 1, tzinfo=UTC))
    assert snapshot(ending).free(worker(device(0))).vram == {0: 13 * GIB}


def test_unified_memory_is_one_pool() -> None:
    shared = device(0, 64 * GIB, memory=DeviceMemory(total=64 * GIB, is_unified_memory=True))
    idle = snapshot().free(worker(shared))
    assert idle == FreeMemory(62 * GIB, {0: 62 * GIB})
    found = snapshot(instance(1, on(1, ram=10, gpu0=20)))
    assert found.free(worker(shared)) == FreeMemory(32 * GIB, {0: 32 * GIB})
    assert found.free(worker(device(0, 64 * GIB), unified=True)) == FreeMemory(32 * GIB, {0: 32 * GIB})


def test_the_unknown_is_not_free_and_not_zero() -> None:
    assert snapshot().free(worker(device(0, None), device(1, fault="lost"), ram=None)) == FreeMemory(None, {})


def test_records_are_found_by_their_fields() -> None:
    one, two = instance(1, None), attrs.evolve(instance(2, None), model_id=5)
    found = snapshot(two, one)
    assert found.find(ModelInstance, model_id=5, name="m-2") == two
    assert found.find(ModelInstance, model_id=6) is None
    assert found.get(ModelInstance, None) is None
    assert found.instances_of(1) == [one]
    assert found.users == {}


def test_what_is_in_use_without_a_claim_is_not_free() -> None:
    used = DeviceMemory(total=24 * GIB, used=9 * GIB, foreign=6 * GIB, overrun=2 * GIB)
    found = snapshot(instance(1, on(1, gpu0=5)))
    assert found.free(worker(device(0, memory=used), device(1))).vram == {0: 10 * GIB, 1: 23 * GIB}
    shared = DeviceMemory(total=64 * GIB, is_unified_memory=True, foreign=8 * GIB)
    assert found.free(worker(device(0, memory=shared))) == FreeMemory(49 * GIB, {0: 49 * GIB})
    assert found.free(worker(device(0, memory=used)).emptied).vram == {0: 18 * GIB}
