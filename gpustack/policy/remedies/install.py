"""Install the engine on a worker, where none has it."""

from __future__ import annotations

from gpustack.domain.worker import Worker
from gpustack.engines.program import programs, requirements_of, version_of
from gpustack.policy.look import objections
from gpustack.policy.remedy import Remedy, of_worker
from gpustack.policy.trial import Trial, changing

RANK = 78
KIND = "install"


def find(trial: Trial) -> Remedy | None:
    """Where no worker has it, and nothing else is against one of them."""
    request, workers = trial.request, trial.unlike
    if any(request.build_on(worker) is not None for worker in workers):
        return None
    for worker in workers:
        if worker.has_reported and len(objections(request, worker, trial.snapshot)) == 1:
            remedy = _on(worker, trial)
            if trial.helps(remedy, worker):
                return remedy
    return None


def _on(worker: Worker, trial: Trial) -> Remedy:
    request = trial.request
    version = version_of(request.model.backend_version)
    wanted = f"{request.engine_name} {version}" if version else request.engine_name
    build = {
        "engine": request.engine_name,
        "version": version,
        "requirements": requirements_of(request.model, programs().get(request.engine_name)),
    }
    sentence = f"install {wanted} on worker {worker.name}, or add a worker that has it"
    return changing(KIND, sentence, of_worker(worker, "engines", (build,)), by_api=False)
