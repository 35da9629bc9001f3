"""Reports wait for the server, in order; one of the same state takes the place of the one before."""

from __future__ import annotations

import logging

import pytest

from gpustack.domain.artifact import FileState
from gpustack.domain.lifecycle import InstanceState as S
from gpustack.domain.report import FileReport, InstanceReport
from tests.worker.conftest import Start
from tests.worker.daemon import NOWHERE, custom_model, instance_of
from tests.worker.server import FakeServer


def said(state: S | None = None, **fields: object) -> InstanceReport:
    return InstanceReport(state=state, **fields)  # type: ignore[arg-type]  # by name


async def test_newer_progress_takes_the_place_of_older_while_the_server_is_away(
    server: FakeServer, start: Start
) -> None:
    server.answers["/v1/workers"] = 503
    worker = await start()
    for key in (1, 2, 1, 2, 1, 2):
        worker.reports.add_instance(key, said(S.DOWNLOADING, download_progress=float(key)))
    worker.reports.add_instance(1, said(download_progress=77.0))
    worker.reports.add_instance(1, said(S.STARTING))
    worker.reports.add_instance(2, said(S.STARTING))
    # The first may be on its way: it is not replaced.
    assert repr(worker.reports) == "<ReportQueue: 5 waiting>"
    for key in (1, 2):
        server.put(instance_of(custom_model(), key, state=S.DOWNLOADING))
    server.answers.clear()
    await server.until(lambda: server.instance(2).state is S.STARTING)
    assert server.instance(1).download_progress == 77.0
    assert not server.refused


async def test_a_refused_report_holds_up_nobody(
    server: FakeServer, start: Start, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "gpustack.worker.report")
    worker = await start()
    worker.reports.add_instance(404, said(S.ERROR))
    worker.reports.add_instance(1, said(S.RUNNING))
    server.put(instance_of(custom_model(), 2, deleted_at=None, state=S.PENDING))
    worker.reports.add_instance(2, said(S.RUNNING))
    worker.reports.add_file(NOWHERE, "", FileReport(state=FileState.READY))
    await server.until(lambda: bool(server.file_reports))
    assert server.refused == [(2, said(S.RUNNING))]
    assert "The server did not take a report: report=instance 404, error reason=" in caplog.text


async def test_a_report_the_server_stumbles_over_does_not_hold_up_the_others_for_ever(
    server: FakeServer, start: Start
) -> None:
    server.answers["/model-instances/7/report"] = 500
    worker = await start()
    worker.reports.add_instance(7, said(S.ERROR))
    worker.reports.add_file(NOWHERE, "", FileReport(state=FileState.READY))
    await server.until(lambda: bool(server.file_reports))
    assert not worker.reports.has_pending(7)


async def test_a_void_credential_costs_no_report(server: FakeServer, start: Start) -> None:
    worker = await start()
    await server.until(lambda: bool(server.statuses))
    server.generation += 1
    worker.reports.add_file(NOWHERE, "", FileReport(state=FileState.READY))
    await server.until(lambda: bool(server.file_reports))
    assert len(server.joins) == 2


async def test_the_last_reports_of_a_daemon_are_delivered(server: FakeServer, start: Start) -> None:
    worker = await start()
    await server.until(lambda: bool(server.statuses))
    worker.reports.add_file(NOWHERE, "", FileReport(state=FileState.READY))
    await worker.crash()
    # After it the worker may have looked for the file that the record speaks of.
    assert [report.state for _, report in server.file_reports][:1] == [FileState.READY]
