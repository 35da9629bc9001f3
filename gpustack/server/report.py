"""What workers say of their instances, files and hardware, taken into the records they own."""

from __future__ import annotations

from typing import Any

import attrs

from gpustack.domain.artifact import ModelFile
from gpustack.domain.instance import ModelInstance
from gpustack.domain.lifecycle import Party
from gpustack.domain.report import FileReport, InstanceReport, StatusReport
from gpustack.domain.worker import Worker
from gpustack.errors import Forbidden, NotFound
from gpustack.store.store import Store
from gpustack.store.transaction import Tx

__all__ = ["FileReport", "InstanceReport", "StatusReport", "report_file", "report_instance", "report_status"]


async def report_instance(store: Store, worker_id: int, instance_id: int, report: InstanceReport) -> None:
    """Take a report. Raises ``NotFound`` when the instance is gone, ``Forbidden`` when it is not (or no longer)
    placed on this worker, ``Conflict`` when its life does not allow the move."""

    def work(tx: Tx) -> None:
        instance = tx.get(ModelInstance, instance_id)
        if instance is None:
            raise NotFound(f"Model instance {instance_id} does not exist")
        if instance.worker_id != worker_id:
            raise Forbidden(f"Model instance {instance.name} is not placed on this worker")
        if report.gone:
            if instance.deleted_at is not None:
                tx.delete(ModelInstance, instance_id)
            return
        said = _said(report, "state", "state_message", "gone")
        if report.state is None:
            tx.change(ModelInstance, instance_id, **said)
        else:
            tx.move(instance, report.state, by=Party.WORKER, message=report.state_message or "", **said)

    await store.write(work)


async def report_file(store: Store, worker_id: int, file_id: int, report: FileReport) -> None:
    """Take a report. Raises ``NotFound`` or ``Forbidden`` as ``report_instance`` does."""

    def work(tx: Tx) -> None:
        file = tx.get(ModelFile, file_id)
        if file is None:
            raise NotFound(f"Model file {file_id} does not exist")
        if file.worker_id != worker_id:
            raise Forbidden(f"Model file {file_id} is not on this worker")
        if report.gone:
            tx.delete(ModelFile, file_id)
            return
        tx.change(ModelFile, file_id, **_said(report, "gone"))

    await store.write(work)


async def report_status(store: Store, worker_id: int, report: StatusReport) -> None:
    """Replace the worker's status. Labels of its own making fill in, they do not overwrite."""

    def work(tx: Tx) -> None:
        worker = tx.get(Worker, worker_id)
        if worker is None:
            raise NotFound(f"Worker {worker_id} does not exist")
        tx.update(
            attrs.evolve(
                worker,
                status=report.status,
                ip=worker.ip if report.ip is None else report.ip,
                labels={**(report.labels or {}), **worker.labels},
            )
        )

    await store.write(work)


def _said(report: InstanceReport | FileReport, *aside: str) -> dict[str, Any]:
    said = {
        field.name: getattr(report, field.name)
        for field in attrs.fields(type(report))
        if field.name not in aside
    }
    return {name: value for name, value in said.items() if value is not None}
