"""The metrics of a worker, from one observation."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

import attrs
from prometheus_client.metrics_core import Metric as Family

from gpustack.domain.device import Device, DeviceCore
from gpustack.domain.instance import ModelInstance, claims_of, summed
from gpustack.domain.worker import Filesystem, WorkerStatus

from . import registry
from .engine_sample import raw_families, read_pages, unify
from .family import Samples
from .mapping import MetricMap
from .process_sample import ProcessObservation, sample_process
from .scrape import ScrapeResult


@attrs.frozen(kw_only=True)
class WorkerLabels:
    """The labels of everything that belongs to one worker."""

    worker_id: int
    worker_name: str
    ip: str

    @property
    def labels(self) -> tuple[object, ...]:
        return (self.worker_id, self.worker_name, self.ip)


@attrs.frozen(kw_only=True)
class WorkerObservation:
    """Everything that the metrics of a worker are made of, at one moment."""

    node: WorkerLabels | None
    """``None`` until the worker has joined: it has no name before."""
    status: WorkerStatus = WorkerStatus()
    allocated: Mapping[int, int] = attrs.field(factory=dict)
    """The claimed bytes of each accelerator, by its index."""
    scraped: Sequence[ScrapeResult] = ()
    mapping: MetricMap
    process: ProcessObservation | None = None


def worker_families(state: WorkerObservation) -> list[Family]:
    """All families of the worker. Parses the answers of engines: call it in a thread."""
    samples = Samples()
    if state.node is not None:
        node = state.node.labels
        _machine(node, state.status, samples)
        for device in state.status.gpu_devices:
            _device(node, device, state.allocated.get(device.index, 0), samples)
        for filesystem in _distinct(state.status.filesystem):
            _filesystem(node, filesystem, samples)
    unify(read_pages(state.scraped), state.mapping, samples)
    of_process = [] if state.process is None else sample_process(state.process, samples)
    return [*samples.families, *of_process]


def engine_families(state: WorkerObservation) -> list[Family]:
    """The metrics of the engines, unchanged."""
    return raw_families(read_pages(state.scraped))


def allocated(instances: Iterable[ModelInstance], worker_id: int) -> Mapping[int, int]:
    """The bytes that instances claim of each accelerator of a worker, by its index."""
    places = (instance.placement for instance in instances if instance.placement is not None)
    return summed(claim for place in places for where, claim in claims_of(place) if where == worker_id).vram


def _machine(node: tuple[object, ...], status: WorkerStatus, samples: Samples) -> None:
    os, kernel = status.os, status.kernel
    if os.name:
        samples.add(registry.NODE_OS, (*node, os.name, os.version), 1)
    if kernel.name:
        named = (kernel.name, kernel.release, kernel.version, kernel.architecture)
        samples.add(registry.NODE_KERNEL, (*node, *named), 1)
    samples.add(registry.NODE_UPTIME, node, status.uptime.uptime)
    samples.add(registry.NODE_CORES, node, status.cpu.total)
    samples.add(registry.NODE_CPU, node, status.cpu.utilization_rate)
    samples.add(registry.NODE_MEMORY_TOTAL, node, status.memory.total)
    samples.add(registry.NODE_MEMORY_USED, node, status.memory.used)
    samples.add(registry.NODE_MEMORY, node, status.memory.utilization_rate)


def _device(node: tuple[object, ...], device: Device, claimed: int, samples: Samples) -> None:
    named = (*node, device.index, device.name, device.device_chip_index)
    samples.add(registry.GPU, named, 1)
    core = device.core or DeviceCore()
    samples.add(registry.GPU_CORES, named, core.total)
    samples.add(registry.GPU_LOAD, named, core.utilization_rate)
    samples.add(registry.GPU_TEMPERATURE, named, device.temperature)
    samples.add(registry.GRAM_TOTAL, named, device.memory.total)
    samples.add(registry.GRAM_ALLOCATED, named, claimed)
    samples.add(registry.GRAM_USED, named, device.memory.used)
    samples.add(registry.GRAM, named, device.memory.utilization_rate)


def _distinct(found: Iterable[Filesystem]) -> list[Filesystem]:
    """One file system for each mount point: the last one mounted there hides the others."""
    return list({one.mount_point: one for one in found}.values())


def _filesystem(node: tuple[object, ...], found: Filesystem, samples: Samples) -> None:
    named = (*node, found.mount_point)
    samples.add(registry.DISK_TOTAL, named, found.total)
    samples.add(registry.DISK_USED, named, found.used)
    if found.total and found.used is not None:
        samples.add(registry.DISK, named, 100 * found.used / found.total)
