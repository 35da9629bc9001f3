"""What runs of engines have shown of their memory, from which estimates learn; one that misleads can be removed."""

from __future__ import annotations

from gpustack.domain.memory_use import MemoryRecord

from ..listing import ListSelection, equal
from ..resource import NO_ROLE, Resource
from ..route import ApiCall
from ..shape import Text
from ..wire import MEMORY_RECORD


async def _delete(call: ApiCall, record: MemoryRecord) -> None:
    await call.context.store.write(lambda tx: tx.delete(MemoryRecord, record.id))


RESOURCE = Resource(
    path="/v1/memory-records",
    name="Memory record",
    record=MemoryRecord,
    view=MEMORY_RECORD,
    create_by=NO_ROLE,
    update_by=NO_ROLE,
    delete=_delete,
    selection=ListSelection(
        filters=(equal("engine", Text()), equal("architecture", Text()), equal("device", Text())),
        search=lambda record: (record.engine, record.architecture, record.device),
    ),
)
