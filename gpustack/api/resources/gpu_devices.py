"""Accelerators as one flat list over all workers, as last reported."""

from __future__ import annotations

from gpustack.domain.worker import Worker

from ..listing import ListSelection
from ..resource import NOBODY, Resource
from ..route import ApiCall
from ..wire import GPU, Gpu, gpus_of


def _named(call: ApiCall) -> Gpu | None:
    wanted = call.ask.params["id"]
    found = (gpu for worker in call.snapshot.workers.values() for gpu in gpus_of(worker))
    return next((gpu for gpu in found if gpu.id == wanted), None)


RESOURCE = Resource(
    path="/v1/gpu-devices",
    name="GPU device",
    record=Worker,
    view=GPU,
    create_by=NOBODY,
    update_by=NOBODY,
    delete_by=NOBODY,
    selection=ListSelection(search=lambda gpu: (gpu.device.name,)),
    items=gpus_of,
    find=_named,
)
