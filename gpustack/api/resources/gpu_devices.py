"""Accelerators of all workers as one flat list, as last reported."""

from __future__ import annotations

from gpustack.domain.worker import Worker

from ..listing import ListSelection
from ..resource import NO_ROLE, Resource
from ..route import ApiCall
from ..wire import GPU, Gpu, gpus_of


def _named(call: ApiCall) -> Gpu | None:
    wanted = call.request.params["id"]
    found = (gpu for worker in call.snapshot.workers.values() for gpu in gpus_of(worker))
    return next((gpu for gpu in found if gpu.id == wanted), None)


RESOURCE = Resource(
    path="/v1/gpu-devices",
    name="GPU device",
    record=Worker,
    view=GPU,
    create_by=NO_ROLE,
    update_by=NO_ROLE,
    delete_by=NO_ROLE,
    selection=ListSelection(search=lambda gpu: (gpu.device.name,)),
    items=gpus_of,
    find=_named,
    shows_load=True,
)
