"""A worker knows which engines it has and what each can drive, by asking the programs."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import trio

from gpustack.hardware.engine_build import BuildFinder, device_types, find_builds
from tests.child import environment

CUDA_LIST = """\
ggml_cuda_init: found 2 CUDA devices:
  Device 0: NVIDIA H200, compute capability 9.0, VMM: yes
Available devices:
  CUDA0: NVIDIA H200 (143771 MiB, 143000 MiB free)
  CUDA1: NVIDIA H200 (143771 MiB, 143000 MiB free)
"""
NO_LIST = "Available devices:\n"


def server(folder: Path, listing: str = NO_LIST, *, fails: str = "") -> Path:
    """A ``llama-server`` that prints recorded output."""
    folder.mkdir(exist_ok=True)
    (folder / "list").write_text(listing)
    program = folder / "llama-server"
    program.write_text(
        "#!/bin/sh\n"
        f"echo asked >> {folder}/asked\n"
        f"{fails}\n"
        'case "$1" in\n'
        "--version) echo 'version: 11549 (0a1b2c3d)' >&2; echo 'built with cc for x86_64' >&2 ;;\n"
        f"--list-devices) cat {folder}/list ;;\n"
        "*) exit 2 ;;\n"
        "esac\n"
    )
    program.chmod(0o755)
    return program


async def test_the_embedded_build_says_that_it_drives_no_gpu_and_how_to_get_one_that_does() -> None:
    builds = await find_builds(None, "", env=environment())
    assert (builds[0].engine, builds[-1].engine) == ("llama.cpp", "custom")
    embedded = builds[0]
    assert embedded.origin.startswith("embedded xllamacpp 20")
    assert embedded.version and embedded.path is None
    assert embedded.drives == ()
    assert "install an xllamacpp wheel" in embedded.advice


async def test_a_server_on_path_goes_before_the_embedded_build(tmp_path: Path) -> None:
    program = server(tmp_path / "bin")
    builds = await find_builds(None, f"{tmp_path}/none:{tmp_path}/bin", env=environment())
    assert [(build.origin.split(" ")[0], build.path) for build in builds[:2]] == [
        ("llama-server", str(program)),
        ("embedded", None),
    ]
    assert builds[0].version == "11549"


async def test_a_configured_server_goes_before_the_one_on_path(tmp_path: Path) -> None:
    mine, other = server(tmp_path / "mine"), server(tmp_path / "bin")
    builds = await find_builds(str(mine), str(other.parent), env=environment())
    assert [build.path for build in builds[:2]] == [str(mine), str(other)]


async def test_a_build_that_drives_devices_goes_before_one_that_does_not(tmp_path: Path) -> None:
    mine, other = server(tmp_path / "mine"), server(tmp_path / "bin", CUDA_LIST)
    builds = await find_builds(str(mine), str(other.parent), env=environment())
    assert (builds[0].path, builds[0].drives, builds[0].advice) == (str(other), ("cuda",), "")


@pytest.mark.parametrize(
    ("fails", "word"),
    [
        ("echo 'libcudart.so.12: cannot open' >&2; exit 127", "exit code 127, libcudart.so.12: cannot open"),
        ("sleep 600", "did not answer within 1 s"),
    ],
)
async def test_a_server_that_does_not_work_is_left_out_and_told(
    tmp_path: Path, fails: str, word: str
) -> None:
    program = server(tmp_path / "bin", fails=fails)
    finder = BuildFinder(env=environment(), deadline=1.0 if "sleep" in fails else 20.0)
    with trio.fail_after(60):
        builds = await finder.find(str(program), "")
    assert builds[0].origin.startswith("embedded")
    assert f"{program} cannot be used: --version {word}" in builds[0].advice


async def test_a_configured_server_that_is_not_there_is_told(tmp_path: Path) -> None:
    builds = await find_builds(str(tmp_path / "absent"), "", env=environment())
    assert f"{tmp_path}/absent cannot be used: No such file or directory" in builds[0].advice


async def test_a_build_is_asked_once_until_its_file_changes(tmp_path: Path) -> None:
    program = server(tmp_path / "bin")
    finder = BuildFinder(env=environment())
    first = await finder.find(str(program), "")
    assert await finder.find(str(program), "") == first
    asked = tmp_path / "bin/asked"
    assert asked.read_text().count("asked") == 3  # version, devices and options
    server(tmp_path / "bin", CUDA_LIST)
    os.utime(program, (1, 1))
    assert (await finder.find(str(program), ""))[0].drives == ("cuda",)
    assert asked.read_text().count("asked") == 6


@pytest.mark.parametrize(
    ("name", "description", "kinds"),
    [
        ("CUDA0", "NVIDIA H200", ("cuda",)),
        ("ROCm1", "AMD Instinct MI300X", ("rocm",)),
        ("Vulkan0", "NVIDIA GeForce RTX 4090", ("cuda",)),
        ("Vulkan0", "AMD Radeon RX 7900 XTX (RADV NAVI31)", ("rocm",)),
        ("Vulkan0", "Intel(R) Arc(tm) A770", ("xpu",)),
        ("Vulkan0", "llvmpipe (LLVM 15.0.6, 256 bits)", ()),
        ("SYCL0", "Intel Arc", ("xpu",)),
        ("CANN0", "Ascend910B", ("npu",)),
        ("MTL0", "Apple M3 Max", ("mps",)),
        ("CPU", "AMD EPYC", ()),
        ("BLAS", "OpenBLAS", ()),
        ("RPC0[127.0.0.1:50052]", "NVIDIA", ()),
    ],
)
def test_a_backends_device_has_the_type_our_detectors_give_it(
    name: str, description: str, kinds: tuple[str, ...]
) -> None:
    assert device_types([(name, description)]) == kinds
