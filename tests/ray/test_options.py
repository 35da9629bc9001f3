"""What a daemon's configuration makes of Ray, where no running cluster is needed to see it."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import cast

import attrs
import pytest
import trio

from gpustack.cli.check import CheckContext, CheckStatus
from gpustack.cli.checks import ray
from gpustack.cli.daemon.context import DaemonContext
from gpustack.cli.daemon.ray import ray_machine
from gpustack.config.loader import Configuration, load
from gpustack.domain.ray import RayHead
from gpustack.nursery.wake import AsyncValue
from gpustack.ray.machine import RayMachine
from gpustack.ray.process import RayProcess
from tests.fakes.ray_program import RayProgram
from tests.hardware.test_engine_program import python_environment


def loaded(folder: Path, *arguments: str, **env: str) -> Configuration:
    given = [*arguments, "--data-dir", str(folder / "data")]
    return load(given, env, platform="linux", cwd=folder)


def machine_of(configuration: Configuration) -> RayMachine:
    ends = SimpleNamespace(ends_engines=True)
    made = ray_machine(cast(DaemonContext, SimpleNamespace(loaded=configuration, shutdown_mode=ends)), None)
    assert made is not None
    return made


@pytest.mark.parametrize(
    ("env", "seconds"), [({}, "30"), ({"GPUSTACK_RAY_PLACEMENT_GROUP_READY_TIMEOUT": "90.5"}, "90.5")]
)
def test_ray_placement_group_ready_timeout_is_told_to_vllm(
    tmp_path: Path, env: dict[str, str], seconds: str
) -> None:
    """``launchers/vllm_ray.py`` waits so long for its places; ``tests/engines_real`` shows it in a real process."""
    machine = machine_of(loaded(tmp_path, "--enable-ray", "--token", "a-token-of-the-tests", **env))
    running = cast(RayProcess, SimpleNamespace(address="10.0.0.1:40096", incarnation="one"))
    machine.up = AsyncValue[RayProcess | None](running)
    assert machine.environment()["GPUSTACK_RAY_PLACEMENT_GROUP_READY_TIMEOUT"] == seconds


def test_a_worker_range_too_small_for_ray_is_refused(tmp_path: Path) -> None:
    with pytest.raises(Exception, match="ray_worker_port_range must hold at least 16 ports"):
        loaded(tmp_path, "--enable-ray", "--ray-worker-port-range", "41000-41010")
    assert loaded(tmp_path, "--ray-worker-port-range", "41000-41010").options.enable_ray is False


@pytest.mark.parametrize("there", [True, False])
def test_the_doctor_says_whether_there_is_a_ray(tmp_path: Path, there: bool) -> None:
    folder = tmp_path / "bin"
    folder.mkdir()
    if there:
        RayProgram.within(folder, "2.61.0")
    context = CheckContext(env={"PATH": str(folder)}, loaded=loaded(tmp_path, "--enable-ray"))
    (found,) = trio.run(ray.look, context)
    if there:
        assert (found.status, found.sentence) == (CheckStatus.GOOD, f"Ray 2.61.0 ({folder}/ray)")
    else:
        assert found.status is CheckStatus.FAILED and "pip install 'ray[default]'" in found.fix
    off = attrs.evolve(context, loaded=loaded(tmp_path))
    assert trio.run(ray.look, off) == []


def test_the_doctor_looks_for_ray_beside_the_vllm_that_is_configured_and_says_why_that_is_none(
    tmp_path: Path,
) -> None:
    program = python_environment(tmp_path / "mine")
    RayProgram.within(program.parent, "2.61.0")
    options = loaded(tmp_path, "--enable-ray", "--engine-path", f"vllm={tmp_path / 'mine'}")
    context = CheckContext(env={"PATH": str(tmp_path)}, loaded=options)
    (found,) = trio.run(ray.look, context)
    assert found.sentence == f"Ray 2.61.0 ({program.parent}/ray)"
    for python in program.parent.glob("python*"):
        python.unlink()
    closed = tmp_path / "python3"
    closed.touch(mode=0o644)
    program.write_text(f"#!{closed}\n")
    (found,) = trio.run(ray.look, context)
    assert f"Of vLLM: {program} cannot be used: {closed}, which runs it: Permission denied" in found.fix


def test_a_head_is_reached_at_its_host() -> None:
    assert RayHead(address="10.0.0.1:40096", incarnation="x").host == "10.0.0.1"
    assert RayHead(address="[fd00::1]:40096", incarnation="x").host == "fd00::1"
