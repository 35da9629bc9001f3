"""The llama.cpp programs are fetched whole and right, put in place at one stroke, and chosen for the machine."""

from __future__ import annotations

import os
import random
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest
import trio

from gpustack.artifacts.disk import CorruptFile
from gpustack.artifacts.fetch import FetchRules
from gpustack.artifacts.tool_release import Platform, candidates, newest_cuda
from gpustack.artifacts.tool_site import ReleaseSite
from gpustack.artifacts.tools import Build, BuildRequest, Tools, find_build
from gpustack.errors import GpustackError, Invalid, NotFound, Unavailable
from gpustack.remote.http import HttpClient, open_client
from tests.fakes.mirror import TAG, Mirror, llama_server, running_mirror, tarball

LINUX = Platform.of("Linux", "x86_64")
CPU = f"llama-{TAG}-bin-ubuntu-x64.tar.gz"


@pytest.fixture
def mirror() -> Iterator[Mirror]:
    with running_mirror() as mirror:
        yield mirror


@pytest.fixture
async def client() -> AsyncIterator[HttpClient]:
    async with open_client() as client:
        yield client


def tools(tmp_path: Path) -> Tools:
    return Tools(tmp_path / "bin", random.Random(1), FetchRules(attempts=2, first_wait=0.001))


def wish(mirror: Mirror, platform: Platform = LINUX, **more: Any) -> BuildRequest:
    return BuildRequest(platform=platform, site=ReleaseSite.at(mirror.url), **more)


async def bring(tools: Tools, wish: BuildRequest, client: HttpClient, **more: Any) -> tuple[Build, list[str]]:
    told: list[str] = []
    with trio.fail_after(30):
        build = await tools.bring(wish, client=client, tell=told.append, **more)
    return build, told


def release(version: str = "11549") -> bytes:
    return tarball(
        {
            "llama-server": llama_server(version),
            "ggml-rpc-server": b"#!/bin/sh\n",
            "libllama.so": "libllama.so.0",
            "libllama.so.0": b"\x7fELF",
        }
    )


async def test_the_latest_build_comes_checked_with_all_its_programs(
    tmp_path: Path, mirror: Mirror, client: HttpClient
) -> None:
    mirror.add(CPU, release())
    mirror.add_hashes()
    box = tools(tmp_path)
    build, told = await bring(box, wish(mirror), client)
    assert build == Build(tag=TAG, name=CPU, origin=mirror.url, checked=True)
    assert told == []
    assert box.installed() == build
    assert os.access(box.program, os.X_OK)
    folder = box.program.parent
    assert {path.name for path in folder.iterdir()} == {
        *("llama-server", "ggml-rpc-server", "libllama.so", "libllama.so.0", "tools.json")
    }
    assert not list((tmp_path / "bin").glob(".llama.cpp-*"))
    assert not (tmp_path / "bin/.arriving").exists()


async def test_a_mirror_without_hashes_is_used_and_said_to_have_none(
    tmp_path: Path, mirror: Mirror, client: HttpClient
) -> None:
    mirror.add(CPU, release())
    build, told = await bring(tools(tmp_path), wish(mirror), client)
    assert not build.checked
    assert told == [f"{mirror.url} has no hashes of {CPU}: it is taken as it comes"]


@pytest.mark.attack("hub")
async def test_what_does_not_match_its_hash_is_not_put_in_place(
    tmp_path: Path, mirror: Mirror, client: HttpClient
) -> None:
    mirror.add(CPU, release())
    mirror.add_hashes(wrong=True)
    with pytest.raises(CorruptFile, match="was fetched from"):
        await bring(tools(tmp_path), wish(mirror), client)
    assert tools(tmp_path).installed() is None


async def test_a_download_that_was_broken_off_is_gone_on_with(
    tmp_path: Path, mirror: Mirror, client: HttpClient
) -> None:
    body = tarball({"llama-server": llama_server() + os.urandom(200_000)})
    mirror.add(CPU, body)
    mirror.cut_after = 60_000
    rules = FetchRules(attempts=1, segments=1)
    first = Tools(tmp_path / "bin", random.Random(1), rules)
    with pytest.raises(Unavailable):
        # one try brings a part of it; no second one follows
        await bring(first, wish(mirror), client)
    before = mirror.sent(CPU)
    assert before >= 60_000
    mirror.cut_after = None
    await bring(first, wish(mirror), client)
    assert mirror.sent(CPU) - before <= len(body) - 60_000 + 1
    assert first.installed() is not None


async def test_the_programs_change_at_one_stroke_and_the_ones_before_stay_once(
    tmp_path: Path, mirror: Mirror, client: HttpClient
) -> None:
    box = tools(tmp_path)
    for number in range(3):
        mirror.add(CPU, release(str(number)))
        await bring(box, wish(mirror), client)
        assert f"version: {number} " in box.program.read_text()
    assert len(list((tmp_path / "bin").glob("llama.cpp-*"))) == 2
    assert (tmp_path / "bin/llama.cpp").is_symlink()


async def test_what_does_not_run_here_does_not_replace_what_does(
    tmp_path: Path, mirror: Mirror, client: HttpClient
) -> None:
    box = tools(tmp_path)
    mirror.add(CPU, release("1"))
    await bring(box, wish(mirror), client)
    mirror.add(CPU, release("2"))

    async def refuse(program: Path) -> str | None:
        assert await trio.Path(program).is_file()
        return "it wants a newer C library"

    with pytest.raises(Unavailable, match=f"{CPU} is not for this machine: it wants a newer C library"):
        await bring(box, wish(mirror), client, try_out=refuse)
    assert "version: 1 " in box.program.read_text()


async def test_what_is_saved_is_loaded_elsewhere_without_a_network(
    tmp_path: Path, mirror: Mirror, client: HttpClient
) -> None:
    mirror.add(CPU, release())
    mirror.add_hashes()
    saved = tmp_path / "tools.tar.gz"
    build, _ = await bring(tools(tmp_path), wish(mirror), client, save=saved, install=False)
    assert tools(tmp_path).installed() is None
    there = Tools(tmp_path / "other", random.Random(2))
    assert await there.load(saved) == build
    assert there.installed() == build
    assert (there.program.parent / "libllama.so").readlink() == Path("libllama.so.0")


async def test_an_archive_of_a_release_can_be_loaded_too(tmp_path: Path) -> None:
    (tmp_path / CPU).write_bytes(release())
    box = tools(tmp_path)
    assert (await box.load(tmp_path / CPU)).tag == "of unknown version"
    assert box.program.is_file()


async def test_an_archive_without_the_program_changes_nothing(tmp_path: Path) -> None:
    (tmp_path / "a.tar.gz").write_bytes(tarball({"README": b"hello"}))
    with pytest.raises(CorruptFile, match=r"a\.tar\.gz holds no llama-server"):
        await tools(tmp_path).load(tmp_path / "a.tar.gz")
    with pytest.raises(Invalid, match="There is no archive"):
        await tools(tmp_path).load(tmp_path / "b.tar.gz")
    assert tools(tmp_path).installed() is None


async def test_a_folder_of_the_users_own_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / CPU).write_bytes(release())
    mine = tmp_path / "bin/llama.cpp/llama-server"
    mine.parent.mkdir(parents=True)
    mine.write_text("mine")
    with pytest.raises(Unavailable, match="was not made by GPUStack: move it away"):
        await tools(tmp_path).load(tmp_path / CPU)
    assert mine.read_text() == "mine"


async def test_gpus_get_the_newest_build_that_their_driver_runs_with_its_libraries(
    tmp_path: Path, mirror: Mirror, client: HttpClient
) -> None:
    for version in ("12.8", "13.4"):
        name = f"llama-{TAG}-bin-ubuntu-cuda-{version}-x64.tar.gz"
        mirror.add(name, release(version))
        mirror.add(f"cudart-{name}", tarball({"libcudart.so.12": version.encode()}, top="cudart"))
    mirror.add_hashes()
    box = tools(tmp_path)
    old = Platform.of("linux", "amd64", "cuda", newest_cuda("570.12.01", None))
    build, _ = await bring(box, wish(mirror, old), client)
    assert build.name == f"llama-{TAG}-bin-ubuntu-cuda-12.8-x64.tar.gz"
    assert (box.program.parent / "libcudart.so.12").read_text() == "12.8"
    new = Platform.of("linux", "amd64", "cuda", newest_cuda("590.1", None))
    assert (await bring(box, wish(mirror, new), client))[0].name.endswith("cuda-13.4-x64.tar.gz")


async def test_devices_without_a_build_of_their_own_get_another_where_none_was_asked_for(
    mirror: Mirror, client: HttpClient
) -> None:
    mirror.add(CPU, release())
    told: list[str] = []
    rocm = Platform.of("linux", "amd64", "rocm")
    build, _ = await find_build(wish(mirror, rocm, any_device=True), client, told.append)
    assert build.name == CPU
    assert told[0] == f"There is no build of llama.cpp {TAG} for ubuntu, x64, rocm on {mirror.url}"
    with pytest.raises(NotFound, match=r"no build of llama\.cpp b11549 for ubuntu, x64, rocm"):
        await find_build(wish(mirror, rocm), client, told.append)


async def test_a_static_build_is_taken_where_there_is_one_and_missed_aloud_where_not(
    mirror: Mirror, client: HttpClient
) -> None:
    mirror.add(CPU, release())
    told: list[str] = []
    build, _ = await find_build(wish(mirror, static=True), client, told.append)
    assert not build.is_static
    assert told[0].startswith(
        f"There is no statically linked build of llama.cpp {TAG} for ubuntu, x64, cpu on "
    )
    static = f"llama-{TAG}-bin-ubuntu-static-x64.tar.gz"
    mirror.add(static, release())
    build, _ = await find_build(wish(mirror, static=True), client, told.append)
    assert (build.name, build.is_static) == (static, True)
    build, _ = await find_build(wish(mirror), client, told.append)
    assert build.name == CPU


async def test_redirects_of_the_release_site_are_followed(
    tmp_path: Path, mirror: Mirror, client: HttpClient
) -> None:
    mirror.add(CPU, release())
    path = next(iter(mirror.files))
    mirror.files["/storage/abc"] = mirror.files.pop(path)
    mirror.redirects[path] = "/storage/abc"
    build, _ = await bring(tools(tmp_path), wish(mirror), client)
    assert build.name == CPU


async def test_the_sites_own_listing_tells_hashes(tmp_path: Path, mirror: Mirror, client: HttpClient) -> None:
    """As the public site has them, which publishes no list of them beside the files."""
    import hashlib
    import json

    body = release()
    mirror.add(CPU, body)
    assets = [{"name": CPU, "size": len(body), "digest": f"sha256:{hashlib.sha256(body).hexdigest()}"}]
    mirror.files[f"/api/repos/ggml-org/llama.cpp/releases/tags/{TAG}"] = json.dumps(
        {"assets": assets}
    ).encode()
    site = ReleaseSite(base=mirror.url, listing=f"{mirror.url}/api")
    build, told = await bring(tools(tmp_path), BuildRequest(platform=LINUX, site=site), client)
    assert (build.checked, told) == (True, [])


@pytest.mark.parametrize(
    ("more", "fault"),
    [
        ({"tag": "../../x"}, r"'\.\./\.\./x' is not the name of a version"),
        ({"tag": "b1"}, "There is no build of llama.cpp b1 for ubuntu, x64, cpu on "),
        ({}, "does not say which version is the latest .status 404.: name one with --version"),
    ],
)
async def test_what_cannot_be_found_is_told(
    mirror: Mirror, client: HttpClient, more: dict[str, Any], fault: str
) -> None:
    mirror.latest = None
    with pytest.raises(GpustackError, match=fault):
        await find_build(wish(mirror, **more), client, lambda sentence: None)


async def test_a_stop_halfway_leaves_what_was_in_place(
    tmp_path: Path, mirror: Mirror, client: HttpClient
) -> None:
    box = tools(tmp_path)
    mirror.add(CPU, release("1"))
    await bring(box, wish(mirror), client)
    mirror.add(CPU, release("2"))
    with trio.CancelScope() as scope:

        async def stop(program: Path) -> str | None:
            scope.cancel()
            await trio.lowlevel.checkpoint()
            return None

        await bring(box, wish(mirror), client, try_out=stop)
    assert scope.cancelled_caught
    assert "version: 1 " in box.program.read_text()
    assert not list((tmp_path / "bin").glob(".llama.cpp-*"))


@pytest.mark.parametrize(
    ("system", "arch", "device", "first"),
    [
        ("Linux", "x86_64", "cpu", "llama-t-bin-ubuntu-x64.tar.gz"),
        ("linux", "aarch64", "cpu", "llama-t-bin-ubuntu-arm64.tar.gz"),
        ("Darwin", "arm64", "mps", "llama-t-bin-macos-arm64.tar.gz"),
        ("linux", "amd64", "vulkan", "llama-t-bin-ubuntu-vulkan-x64.tar.gz"),
        ("linux", "amd64", "cuda", "llama-t-bin-ubuntu-cuda-13.4-x64.tar.gz"),
        ("linux", "amd64", "cuda-12.8", "llama-t-bin-ubuntu-cuda-12.8-x64.tar.gz"),
        ("linux", "arm64", "cuda", "llama-t-bin-ubuntu-cuda-13.4-arm64.tar.gz"),
        ("linux", "amd64", "rocm", "llama-t-bin-ubuntu-rocm-10.0-x64.tar.gz"),
    ],
)
def test_builds_are_named_as_releases_name_them(system: str, arch: str, device: str, first: str) -> None:
    platform = Platform.of(system, arch, device)
    assert next(candidates("t", platform, static=False, names=None)) == first


@pytest.mark.parametrize(
    "words", [("windows", "amd64", "cpu"), ("linux", "riscv", "cpu"), ("linux", "amd64", "tpu")]
)
def test_a_machine_without_tools_is_told(words: tuple[str, str, str]) -> None:
    with pytest.raises(Invalid, match="There are no tools for the "):
        Platform.of(*words)


@pytest.mark.parametrize(
    ("driver", "told", "newest"),
    [
        ("580.65.06", None, 13),
        ("550.54", None, 12),
        ("470.1", None, 11),
        (None, None, None),
        ("550.54", "13.0.1", 13),
        (None, "12.4", 12),
    ],
)
def test_the_driver_bounds_the_cuda_unless_told(
    driver: str | None, told: str | None, newest: int | None
) -> None:
    assert newest_cuda(driver, told) == newest
