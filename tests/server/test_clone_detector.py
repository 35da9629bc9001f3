"""A copied data directory makes two machines one worker: the one that was there first stays, and both are told."""

from __future__ import annotations

from typing import Any

import attrs
import pytest

from gpustack.domain.report import JoinRequest
from gpustack.domain.worker import Worker
from gpustack.errors import Conflict
from gpustack.server.join import CloneDetector

from .cluster import Cluster


@attrs.define
class Link:
    """Stands for the network: which daemon answers where the worker is."""

    answers: str | None
    asked: list[str] = attrs.field(factory=list)

    async def run_of(self, worker: Worker) -> str | None:
        self.asked.append(worker.name)
        return self.answers


def request(ip: str = "10.0.0.9", **more: Any) -> JoinRequest:
    return JoinRequest(**{"name": "a", "worker_uuid": "uuid-a", "ip": ip, "run": "second", **more})


async def test_a_clone_of_a_worker_that_answers_is_refused_with_both_addresses(
    cluster: Cluster, caplog: pytest.LogCaptureFixture
) -> None:
    await cluster.worker("a", ip="10.0.0.5")
    detector = CloneDetector(Link("first"), cluster.clock.monotonic)
    for _ in range(3):
        with pytest.raises(Conflict) as refused:
            await detector.refuse(request(), cluster.snapshot)
    for said in ("10.0.0.5:10150", "10.0.0.9:10150", "worker_uuid, worker_name and worker_credential"):
        assert said in str(refused.value)
    (line,) = [record.getMessage() for record in caplog.records if record.name == "gpustack.server.join"]
    assert "there=10.0.0.5:10150 refused=10.0.0.9:10150" in line
    cluster.clock.forward(3601)
    with pytest.raises(Conflict):
        await detector.refuse(request(), cluster.snapshot)
    assert len([record for record in caplog.records if record.name == "gpustack.server.join"]) == 2


@pytest.mark.parametrize(
    ("answers", "asked", "more"),
    [
        (None, 1, {}),  # the machine has got another address, or its daemon has died
        ("second", 1, {}),  # it is reached in two ways
        ("first", 0, {"ip": "10.0.0.5"}),  # started anew where it was
        ("first", 0, {"run": ""}),  # of a former version
        ("first", 0, {"worker_uuid": "uuid-b"}),
    ],
)
async def test_who_is_no_clone_is_let_on(
    cluster: Cluster, answers: str | None, asked: int, more: dict[str, Any]
) -> None:
    await cluster.worker("a", ip="10.0.0.5")
    link = Link(answers)
    await CloneDetector(link, cluster.clock.monotonic).refuse(request(**more), cluster.snapshot)
    assert len(link.asked) == asked


@pytest.mark.parametrize("state", ["leaving", "barred"])
async def test_nobody_is_asked_for_a_worker_that_has_left_or_is_barred(cluster: Cluster, state: str) -> None:
    worker = await cluster.worker("a", ip="10.0.0.5")
    await cluster.change(worker, **{state: True})
    link = Link("first")
    await CloneDetector(link, cluster.clock.monotonic).refuse(request(), cluster.snapshot)
    assert link.asked == []
