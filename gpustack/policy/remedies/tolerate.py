"""Let the deployment tolerate the taints of a worker."""

from __future__ import annotations

from gpustack.domain.taint import TaintEffect, Toleration, seconds_tolerated
from gpustack.domain.worker import Worker
from gpustack.policy.remedy import Remedy, of_model
from gpustack.policy.trial import Trial, changing

RANK = 27
KIND = "tolerate"


def find(trial: Trial) -> Remedy | None:
    """Those of the first worker that has a place then."""
    tainted = (worker for worker in trial.unlike if worker.taints)
    return trial.first_that_helps((worker, _tolerating(trial, worker)) for worker in tainted)


def _tolerating(trial: Trial, worker: Worker) -> Remedy:
    before = trial.request.model.tolerations
    against = [
        taint
        for taint in worker.taints
        if taint.effect is not TaintEffect.PREFER_NO_SCHEDULE and seconds_tolerated(taint, before) is not None
    ]
    # One that is tolerated for a time only, the shortest counts of: these give way.
    kept = [one for one in before if not any(one.tolerates(taint) for taint in against)]
    added = [Toleration(key=one.key, value=one.value, effect=one.effect) for one in against]
    marks = ", ".join(map(str, against))
    sentence = f"let the deployment tolerate {marks} (tolerations), or take it from worker {worker.name}"
    value = [_document(one) for one in (*kept, *added)]
    return changing(KIND, sentence, of_model(trial.request, "tolerations", value))


def _document(one: Toleration) -> dict[str, object]:
    return {
        "key": one.key,
        "operator": one.operator,
        "value": one.value,
        "effect": one.effect,
        "toleration_seconds": one.toleration_seconds,
    }
