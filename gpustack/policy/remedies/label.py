"""Label a worker as the deployment asks."""

from __future__ import annotations

from collections.abc import Mapping

from gpustack.domain.worker import unmatched
from gpustack.policy.remedy import Remedy, of_worker
from gpustack.policy.trial import Trial, changing

RANK = 75
KIND = "label"


def find(trial: Trial) -> Remedy | None:
    """The first worker that lacks no more than labels."""
    wanted = trial.request.model.worker_selector
    if not wanted:
        return None
    lacking = (worker for worker in trial.unlike if unmatched(wanted, worker.labels))
    return trial.first_that_helps(
        (
            worker,
            changing(
                KIND,
                f"label worker {worker.name} with {pairs(wanted)}, or add a worker so labelled",
                of_worker(worker, "labels", {**worker.labels, **wanted}),
            ),
        )
        for worker in lacking
    )


def pairs(labels: Mapping[str, str]) -> str:
    """``gpu=a100,zone=b``."""
    return ",".join(f"{key}={value}" for key, value in sorted(labels.items()))
