"""What an engine inherits."""

from __future__ import annotations

import pytest

from gpustack.worker.engine_process import inherited_environment


@pytest.mark.parametrize(
    "name", ["PATH", "HOME", "LD_LIBRARY_PATH", "CUDA_HOME", "HF_HOME", "NCCL_DEBUG", "LC_ALL", "TMPDIR"]
)
def test_paths_and_drivers_are_passed_on(name: str) -> None:
    assert inherited_environment({name: "x"}) == {name: "x"}


@pytest.mark.parametrize(
    "name",
    [
        "GPUSTACK_TOKEN",
        "GPUSTACK_DATABASE_URL",
        "HF_TOKEN",
        "HUGGING_FACE_HUB_TOKEN",
        "VLLM_API_KEY",
        "AWS_SECRET_ACCESS_KEY",
        "PGPASSWORD",
        "NOTIFY_SOCKET",
        "CREDENTIALS_DIRECTORY",
        "LISTEN_FDS",
    ],
)
def test_secrets_and_what_is_the_daemons_own_are_not(name: str) -> None:
    assert inherited_environment({name: "x"}) == {}
