"""Whatever is said of an instance, in whatever order: the server can take each move."""

from __future__ import annotations

from typing import cast

import attrs
from hypothesis import given
from hypothesis import strategies as st

from gpustack.domain.lifecycle import InstanceState as S
from gpustack.domain.lifecycle import Party, allowed
from gpustack.domain.report import InstanceReport
from gpustack.worker.report import InstanceReporter, ReportQueue
from tests.worker.daemon import custom_model, instance_of

OURS = [S.INITIALIZING, S.DOWNLOADING, S.STARTING, S.RUNNING, S.ERROR]
FOUND = [*OURS, S.SCHEDULED, S.UNREACHABLE]


@attrs.define
class Kept:
    """Where reports end up; ``pending`` while they are on their way."""

    said: list[InstanceReport] = attrs.field(factory=list)
    pending: bool = False

    def add_instance(self, instance_id: int, report: InstanceReport) -> None:
        self.said.append(report)

    def has_pending(self, instance_id: int) -> bool:
        return self.pending


def reporter(kept: Kept, state: S) -> InstanceReporter:
    return InstanceReporter(cast(ReportQueue, kept), 1, state)


@given(st.sampled_from(FOUND), st.lists(st.sampled_from(OURS)))
def test_every_reported_move_is_allowed(found: S, told: list[S]) -> None:
    kept = Kept()
    one = reporter(kept, found)
    for state in told:
        one.report(state)
    at = found
    for report in kept.said:
        assert report.state is not None
        assert allowed(at, report.state, Party.WORKER)
        at = report.state
    assert at is (told[-1] if told else found)


@given(st.sampled_from(FOUND), st.sampled_from(OURS), st.sampled_from(FOUND))
def test_reporting_again_brings_any_record_to_what_was_reported(found: S, told: S, shown: S) -> None:
    kept = Kept()
    one = reporter(kept, found)
    one.report(told, "why", pid=7)
    kept.said.clear()
    one.repeat(instance_of(custom_model(), state=shown))
    at = shown
    for report in kept.said:
        assert report.state is not None and allowed(at, report.state, Party.WORKER)
        at = report.state
    assert at is told
    assert not kept.said or (kept.said[-1].pid, kept.said[-1].state_message) == (7, "why")


def test_nothing_is_reported_again_while_a_report_is_on_its_way_or_before_the_first() -> None:
    kept = Kept()
    one = reporter(kept, S.SCHEDULED)
    record = instance_of(custom_model(), state=S.ERROR)
    assert not one.differs(record)
    one.report(S.RUNNING)
    assert one.differs(record)
    kept.pending = True
    assert not one.differs(record)


def test_a_move_that_is_allowed_goes_no_roundabout_way() -> None:
    kept = Kept()
    one = reporter(kept, S.RUNNING)
    one.report(S.RUNNING, port=1)
    assert [report.state for report in kept.said] == [S.RUNNING]
