"""Workers that are only supposed: what a text means, what is taken from others, and what is known of GPUs by name."""

from __future__ import annotations

import pytest

from gpustack.domain.device import DeviceMemory
from gpustack.domain.gpu_kind import KINDS, folded, kind_named, kinds_among, read_bytes
from gpustack.domain.instance import Claim, claims_of
from gpustack.domain.lifecycle import InstanceState
from gpustack.domain.unit import GIB, MIB
from gpustack.policy.what_if import supposed_worker, with_drained, with_workers, without_workers

from .worlds import CPU_BUILD, RPC_BUILD, gpu, instance, model, worker, world


def test_a_kind_is_known_by_the_names_that_people_write() -> None:
    for text in ("RTX4090", "rtx 4090", "GeForce RTX 4090", "NVIDIA GeForce RTX 4090", "rtx-4090"):
        kind = kind_named(text)
        assert kind is not None and (kind.memory, kind.compute_capability) == (24564 * MIB, "8.9")
    smaller, larger = kind_named("A100"), kind_named("A100 80GB")
    assert smaller is not None and larger is not None and smaller.memory < larger.memory
    l4, l40s = kind_named("L4"), kind_named("l40s")
    assert l4 is not None and l40s is not None and l4.memory < l40s.memory
    assert kind_named("RTX") is None and kind_named("") is None
    assert len({folded(one.name) for one in KINDS}) == len(KINDS)


def test_a_kind_of_the_cluster_is_known_as_it_is_there() -> None:
    there = [
        gpu(0, 40, name="NVIDIA A100-SXM4-40GB"),
        gpu(1, 80, name="NVIDIA A100-SXM4-80GB"),
        gpu(2, 7, name="MyGPU", compute_capability="6.1"),
        gpu(3, name="shared", memory=DeviceMemory(total=64 * GIB, is_unified_memory=True)),
        gpu(4, name="unknown", memory=DeviceMemory()),
    ]
    kinds = kinds_among(there)
    assert [one.name for one in kinds] == ["NVIDIA A100-SXM4-40GB", "NVIDIA A100-SXM4-80GB", "MyGPU"]
    own, a100 = kind_named("mygpu", kinds), kind_named("A100", kinds)
    assert own is not None and own.memory == 7 * GIB
    assert a100 is not None and a100.memory == 40 * GIB


@pytest.mark.parametrize(
    ("text", "size"),
    [("24GiB", 24 * GIB), ("24g", 24 * GIB), ("1.5T", 1536 * GIB), ("24", None), ("x", None)],
)
def test_sizes_are_read(text: str, size: int | None) -> None:
    assert read_bytes(text) == size


def test_a_supposed_worker_is_like_the_most_similar_one() -> None:
    cpu = worker(1, ram=8, build=CPU_BUILD, labels={"zone": "c"})
    card = worker(2, ram=128, gpus=[gpu(0, name="NVIDIA L4")], build=RPC_BUILD, labels={"zone": "g"})
    found = supposed_worker("4xRTX4090", world(cpu, card))
    made = found.worker
    assert (made.id, made.name, made.labels, made.status.memory.total) == (
        3,
        "new-4xrtx4090",
        {"zone": "g"},
        128 * GIB,
    )
    assert made.status.engines == card.status.engines and [d.index for d in made.status.gpu_devices] == [
        0,
        1,
        2,
        3,
    ]
    assert "engines and labels are those of node-b" in found.assumed[0]
    assert supposed_worker("2x24GiB+64GiB", world(card)).worker.status.memory.total == 64 * GIB
    second = supposed_worker("4xRTX4090", world(cpu, card), [made.name]).worker
    assert (second.id, second.name) == (4, "new-4xrtx4090-2")
    among_cpus = supposed_worker("1xMI300X", world(cpu))
    assert among_cpus.worker.status.engines[0].drives == ("rocm",)
    assert "its builds drive rocm devices" in among_cpus.assumed[0]
    alone = supposed_worker("1x24GiB", world())
    assert alone.worker.status.gpu_devices[0].type == "cuda" and "llama.cpp is there" in alone.assumed[0]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("RTX4090", "COUNTxKIND"),
        ("0xRTX4090", "COUNTxKIND"),
        ("65xRTX4090", "at most 64"),
        ("2xRTX4900", "did you mean RTX 4090?"),
        ("2xqqqqqqqq", "is not known. Any can be given by size"),
        ("2xL4+lots", "'lots'"),
    ],
)
def test_what_means_nothing_is_told_in_one_sentence(text: str, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        supposed_worker(text, world())


def test_a_worker_that_is_gone_leaves_what_ran_there_without_a_place() -> None:
    first, second, m = worker(1), worker(2), model()
    claim = Claim(ram=GIB)
    here = instance(1, m, on=first, claim=claim)
    snapshot = world(first, second, m, here, instance(2, m, on=second, claim=claim), instance(3, m))
    left = without_workers(snapshot, [1])
    assert set(left.workers) == {2} and set(left.instances) == {1, 2, 3}
    assert (left.instances[1].placement, left.instances[1].state) == (None, InstanceState.PENDING)
    assert [one.id for one, _ in left.claims_on(1)] == []
    assert without_workers(snapshot, []) is snapshot and with_workers(snapshot, []) is snapshot
    drained = with_drained(snapshot, [1]).workers[1]
    assert drained.draining and not drained.takes_instances
    assert snapshot.instances[1].placement is not None and claims_of(snapshot.instances[1].placement)
