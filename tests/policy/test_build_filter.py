"""A deployment goes where the engine is in the version it names, or can be installed, and drives what is there."""

from __future__ import annotations

import attrs
import pytest

from gpustack.domain.worker import BuildPresence, EngineBuild
from gpustack.policy.filters.build import keep
from gpustack.policy.placement import PlacementRequest
from tests.policy.worlds import gpu, model, worker, world

HERE = EngineBuild(engine="llama.cpp", version="0.7.0+cpu", origin="configured", path="/opt/llama-server")
OFFER = EngineBuild(
    engine="llama.cpp", version="0.9.0", presence=BuildPresence.INSTALLABLE, drives=("cuda",), on_cpu=False
)
MISSING = EngineBuild(engine="llama.cpp", presence=BuildPresence.MISSING, advice="its package is for Linux")


def verdict(*builds: EngineBuild, version: str | None = None, gpus: int = 0) -> str | None:
    where = worker(gpus=[gpu(index) for index in range(gpus)])
    where = attrs.evolve(where, status=attrs.evolve(where.status, engines=builds))
    request = PlacementRequest(model=model(backend_version=version), engine_name="llama.cpp")
    return keep(request, where, world(where))


@pytest.mark.parametrize(
    ("builds", "version", "gpus", "why"),
    [
        ((HERE,), None, 0, None),
        ((HERE,), "v0.7.0", 0, None),
        ((HERE, OFFER), "0.8.0", 1, None),
        ((HERE,), "0.8.0", 0, "worker node-a has no llama.cpp 0.8.0 (it has 0.7.0+cpu)"),
        (
            (HERE, MISSING),
            "0.8.0",
            0,
            "worker node-a has no llama.cpp 0.8.0 (it has 0.7.0+cpu): its package is for Linux",
        ),
        ((MISSING,), None, 0, "worker node-a has no llama.cpp: its package is for Linux"),
        ((), None, 0, "worker node-a has not reported yet which engines it has"),
        ((OFFER,), None, 0, "worker node-a has no GPU, and llama.cpp 0.9.0 needs one (cuda)"),
        (
            (attrs.evolve(OFFER, drives=("rocm",), advice="install one for CUDA"),),
            None,
            2,
            "llama.cpp on worker node-a cannot drive its 2 GPUs (cuda). install one for CUDA",
        ),
    ],
)
def test_a_worker_is_out_without_the_version_or_the_devices_and_the_sentence_says_which(
    builds: tuple[EngineBuild, ...], version: str | None, gpus: int, why: str | None
) -> None:
    assert verdict(*builds, version=version, gpus=gpus) == why
