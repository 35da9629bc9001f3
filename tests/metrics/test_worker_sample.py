"""The worker's metrics follow from what was measured last; what could not be measured is not shown as zero."""

from __future__ import annotations

from typing import Any

import attrs

from gpustack.domain.artifact import ModelSource, SourceKind
from gpustack.domain.device import Device, DeviceCore, DeviceMemory
from gpustack.domain.instance import Claim, ModelInstance, Placement, Subordinate
from gpustack.domain.worker import Cpu, Filesystem, Kernel, Memory, OperatingSystem, Uptime, WorkerStatus
from gpustack.metrics.mapping import default_map
from gpustack.metrics.worker_sample import WorkerLabels, WorkerObservation, allocated, worker_families

from .page import check_declared, shown, value

NODE = WorkerLabels(worker_id=7, worker_name="w7", ip="10.0.0.7")
CARD = Device(
    index=4,
    name="NVIDIA H200",
    vendor="NVIDIA",
    type="cuda",
    core=DeviceCore(total=132, utilization_rate=12.5),
    memory=DeviceMemory(total=1000, used=250, utilization_rate=25.0),
    temperature=31.0,
)
STATUS = WorkerStatus(
    os=OperatingSystem(name="Debian GNU/Linux", version="12"),
    kernel=Kernel(name="Linux", release="6.1", version="#1", architecture="x86_64"),
    uptime=Uptime(uptime=60.0),
    cpu=Cpu(total=2.0, utilization_rate=50.0),
    memory=Memory(total=400, used=100, utilization_rate=25.0),
    filesystem=(
        Filesystem(name="root", mount_point="/", total=200, used=50),
        Filesystem(name="over", mount_point="/", total=300, used=30),
        Filesystem(name="unread", mount_point="/far"),
    ),
    gpu_devices=(
        CARD,
        attrs.evolve(CARD, index=5, core=DeviceCore(), memory=DeviceMemory(), temperature=None),
    ),
)


def state(**more: Any) -> WorkerObservation:
    return WorkerObservation(**{"node": NODE, "status": STATUS, "mapping": default_map(), **more})


def test_the_machine_and_its_cards_are_told_by_their_own_index() -> None:
    found = shown(worker_families(state(allocated={4: 700})))
    check_declared(found)
    node = {"worker_id": "7", "worker_name": "w7", "instance": "10.0.0.7"}
    assert value(found, "gpustack:worker_node_os_info", **node, name="Debian GNU/Linux", version="12") == 1
    kernel = {"name": "Linux", "release": "6.1", "version": "#1", "architecture": "x86_64"}
    assert value(found, "gpustack:worker_node_kernel_info", **node, **kernel) == 1
    assert value(found, "gpustack:worker_node_uptime_seconds", **node) == 60
    assert value(found, "gpustack:worker_node_cpu_cores", **node) == 2
    assert value(found, "gpustack:worker_node_memory_used_bytes", **node) == 100
    card = {**node, "gpu_index": "4", "gpu_name": "NVIDIA H200", "gpu_chip_index": "0"}
    assert value(found, "gpustack:worker_node_gpu_info", **card) == 1
    assert value(found, "gpustack:worker_node_gpu_utilization_rate", **card) == 12.5
    assert value(found, "gpustack:worker_node_gpu_temperature_celsius", **card) == 31
    assert value(found, "gpustack:worker_node_gram_total_bytes", **card) == 1000
    assert value(found, "gpustack:worker_node_gram_allocated_bytes", **card) == 700
    assert value(found, "gpustack:worker_node_gram_used_bytes", **card) == 250


def test_what_could_not_be_measured_has_no_series() -> None:
    found = shown(worker_families(state()))
    assert value(found, "gpustack:worker_node_gpu_info", gpu_index="5") == 1
    for name in ("gram_used_bytes", "gram_total_bytes", "gpu_temperature_celsius", "gpu_cores"):
        assert value(found, f"gpustack:worker_node_{name}", gpu_index="5") is None
    assert value(found, "gpustack:worker_node_filesystem_used_bytes", mountpoint="/far") is None


def test_a_mount_point_is_shown_once() -> None:
    found = shown(worker_families(state()))
    assert value(found, "gpustack:worker_node_filesystem_total_bytes", mountpoint="/") == 300
    assert value(found, "gpustack:worker_node_filesystem_utilization_rate", mountpoint="/") == 10


def test_a_card_that_is_gone_leaves_nothing_behind() -> None:
    found = shown(worker_families(state(status=attrs.evolve(STATUS, gpu_devices=()), allocated={4: 700})))
    assert not [name for name, _ in found if "_gpu_" in name or "_gram_" in name]


def test_before_it_has_joined_a_machine_has_no_name_and_no_series() -> None:
    assert shown(worker_families(state(node=None))) == {}


def test_claims_are_summed_by_card_wherever_the_instance_has_its_head() -> None:
    source = ModelSource(kind=SourceKind.LOCAL_PATH, local_path="/x.gguf")

    def placed(number: int, placement: Placement | None) -> ModelInstance:
        return ModelInstance(
            id=number, name=str(number), model_id=1, model_name="m", source=source, placement=placement
        )

    shared = Placement(
        worker_id=8,
        claim=Claim(vram={0: 99}),
        subordinates=(Subordinate(worker_id=7, claim=Claim(vram={0: 5})),),
    )
    instances = (
        placed(1, Placement(worker_id=7, claim=Claim(vram={0: 10, 1: 20}))),
        placed(2, shared),
        placed(3, None),
    )
    assert allocated(instances, 7) == {0: 15, 1: 20}
