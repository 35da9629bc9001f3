"""Only workers that have the engine in the version asked for, or can install it, and the devices that it needs."""

from __future__ import annotations

from gpustack.domain.snapshot import Snapshot
from gpustack.domain.worker import BuildPresence, Worker
from gpustack.engines.program import programs, requirements_of, version_of
from gpustack.policy.capacity import driven, undriven
from gpustack.policy.placement import PlacementRequest

OF_SHAPE = True


def keep(request: PlacementRequest, worker: Worker, snapshot: Snapshot) -> str | None:
    """``None`` when the worker has a build of the engine, or can make one, that runs there."""
    build = request.build_on(worker)
    if build is None and not worker.status.engines:
        return f"worker {worker.name} has not reported yet which engines it has"
    if build is None:
        return _why_none(request, worker)
    if build.on_cpu or driven(request, worker):
        return None
    kinds = ", ".join(build.drives)
    return (
        undriven(request, worker) or f"worker {worker.name} has no GPU, and {build.shown} needs one ({kinds})"
    )


def _why_none(request: PlacementRequest, worker: Worker) -> str:
    engine, version = request.engine_name, version_of(request.model.backend_version)
    mine = [build for build in worker.status.engines if build.engine == engine]
    advice = next((build.advice for build in mine if build.presence is BuildPresence.MISSING), "")
    if version is None and any(build.presence is BuildPresence.INSTALLABLE for build in mine):
        advice = "name a version with backend_version, and it is installed there"
    program = programs().get(engine)
    if not mine and program is not None and program.package is None:
        advice = program.advice
    there = [build for build in mine if build.presence is not BuildPresence.MISSING and build.version]
    wanted = f"{engine} {version}" if version else engine
    if requirements_of(request.model, program):
        wanted += " with the requirements of the deployment"
    says = f"worker {worker.name} has no {wanted}"
    if there:
        says += f" (it has {', '.join(dict.fromkeys(str(build.version) for build in there))})"
    return f"{says}: {advice}" if advice else says
