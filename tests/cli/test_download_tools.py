"""``gpustack download-tools`` as a person runs it, against a mirror on loopback."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.child import environment
from tests.fakes.mirror import TAG, Mirror, llama_server, running_mirror, tarball

CPU = f"llama-{TAG}-bin-ubuntu-x64.tar.gz"
HERE = ("--system=linux", "--device=cpu", f"--arch={os.uname().machine}")


@pytest.fixture
def mirror() -> Iterator[Mirror]:
    with running_mirror() as mirror:
        for arch in ("x64", "arm64"):
            mirror.add(f"llama-{TAG}-bin-ubuntu-{arch}.tar.gz", tarball({"llama-server": llama_server()}))
        mirror.add_hashes()
        yield mirror


def download(tmp_path: Path, *arguments: str, **env: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "gpustack", "download-tools", *arguments]
    env = {"GPUSTACK_DATA_DIR": str(tmp_path / "data"), **env}
    return subprocess.run(command, env=environment(**env), capture_output=True, text=True, timeout=60)


def test_it_puts_the_tools_where_a_worker_finds_them(tmp_path: Path, mirror: Mirror) -> None:
    ran = download(tmp_path, f"--tools-download-base-url={mirror.url}", *HERE)
    assert (ran.returncode, ran.stderr) == (
        0,
        f"llama.cpp {TAG} ({next(reversed(mirror.log))[0].rpartition('/')[2]}) is in place; its hash is right.\n",
    )
    program = tmp_path / "data/bin/llama.cpp/llama-server"
    assert ran.stdout == f"{program}\n"
    said = subprocess.run([program, "--version"], capture_output=True, text=True, timeout=30, check=True)
    assert "version: 11549" in said.stderr


def test_an_archive_takes_them_to_a_machine_without_a_network(tmp_path: Path, mirror: Mirror) -> None:
    saved = tmp_path / "tools.tar.gz"
    other = {"x86_64": "arm64"}.get(os.uname().machine, "amd64")
    ran = download(
        tmp_path, "--system=linux", f"--arch={other}", "--quiet",
        GPUSTACK_SAVE_ARCHIVE=str(saved), GPUSTACK_TOOLS_DOWNLOAD_BASE_URL=mirror.url,
    )  # fmt: skip
    assert (ran.returncode, ran.stdout, ran.stderr) == (0, f"{saved}\n", "")
    assert not (tmp_path / "data/bin/llama.cpp").exists()
    ran = download(tmp_path, f"--load-archive={saved}", f"--bin-dir={tmp_path}/far")
    assert (ran.returncode, ran.stdout) == (0, f"{tmp_path}/far/llama.cpp/llama-server\n")
    assert ran.stderr == f"llama.cpp {TAG} is in place.\n"


def test_a_static_build_is_asked_for_by_the_variable(tmp_path: Path, mirror: Mirror) -> None:
    ran = download(
        tmp_path,
        f"--tools-download-base-url={mirror.url}",
        *HERE,
        GPUSTACK_DISABLE_DYNAMIC_LINK_LLAMA_BOX="true",
    )
    assert ran.returncode == 0
    assert f"There is no statically linked build of llama.cpp {TAG} for ubuntu, " in ran.stderr


@pytest.mark.parametrize("version", ["12.8", "13.4"])
def test_the_tools_are_those_of_the_cuda_that_is_told(tmp_path: Path, version: str) -> None:
    """CUDA_VERSION stands for a driver that cannot be asked, as while an image is built."""
    with running_mirror() as mirror:
        for there in ("12.8", "13.4"):
            name = f"llama-{TAG}-bin-ubuntu-cuda-{there}-x64.tar.gz"
            mirror.add(name, tarball({"llama-server": llama_server()}))
            mirror.add(f"cudart-{name}", tarball({"libcudart.so": there.encode()}, top="cudart"))
        mirror.add_hashes()
        asked = ("--system=linux", "--arch=amd64", "--device=cuda")
        base = f"--tools-download-base-url={mirror.url}"
        ran = download(tmp_path, base, *asked, f"--save-archive={tmp_path}/t.tar.gz", CUDA_VERSION=version)
    assert ran.returncode == 0, ran.stderr
    assert f"llama-{TAG}-bin-ubuntu-cuda-{version}-x64.tar.gz" in ran.stderr


def test_what_does_not_run_here_is_told_and_left_out(tmp_path: Path, mirror: Mirror) -> None:
    broken = b"#!/bin/sh\necho 'version GLIBC_2.99 not found' >&2\nexit 1\n"
    for arch in ("x64", "arm64"):
        mirror.add(f"llama-{TAG}-bin-ubuntu-{arch}.tar.gz", tarball({"llama-server": broken}))
    mirror.add_hashes()
    ran = download(tmp_path, f"--tools-download-base-url={mirror.url}", *HERE)
    assert (ran.returncode, ran.stdout) == (1, "")
    assert ran.stderr.endswith("--version exit code 1, version GLIBC_2.99 not found\n")
    assert not (tmp_path / "data/bin/llama.cpp").exists()


@pytest.mark.parametrize(
    ("arguments", "code", "sentence"),
    [
        (("--tools-download-base-url=http://127.0.0.1:9",), 1, "gpustack: http://127.0.0.1:9/"),
        (("--tools-download-base-url=http://127.0.0.1:9",), 1, "; set --tools-download-base-url to a mirror"),
        (("--tools-download-base-url=ftp://x",), 2, "tools_download_base_url must be a URL"),
        (("--load-archive=/absent",), 1, "gpustack: There is no archive /absent\n"),
        (("--load-archive=/a", "--save-archive=/b"), 2, "--load-archive fetches nothing"),
        (("--system=windows", "--save-archive=/b"), 1, "There are no tools for the system 'windows'"),
        (("--system=darwin",), 2, "only packed: say where with --save-archive"),
        (("--device=tpu",), 1, "There are no tools for the device 'tpu'"),
    ],
)
def test_what_is_wrong_is_told_in_a_sentence(
    tmp_path: Path, arguments: tuple[str, ...], code: int, sentence: str
) -> None:
    ran = download(tmp_path, *arguments)
    assert (ran.returncode, ran.stdout) == (code, "")
    assert sentence in ran.stderr
    assert "Traceback" not in ran.stderr


def test_ctrl_c_ends_it_at_once_and_what_came_is_kept(tmp_path: Path, mirror: Mirror) -> None:
    """The mirror holds the last byte back, so that the command is in the middle of it for sure."""
    body = tarball({"llama-server": llama_server() + os.urandom(3 << 20)})
    for arch in ("x64", "arm64"):
        mirror.add(f"llama-{TAG}-bin-ubuntu-{arch}.tar.gz", body)
    mirror.add_hashes()
    mirror.hold_at = len(body) - 1
    command = [sys.executable, "-m", "gpustack", "download-tools", *HERE]
    env = environment(GPUSTACK_DATA_DIR=str(tmp_path / "data"), GPUSTACK_TOOLS_DOWNLOAD_BASE_URL=mirror.url)
    process = subprocess.Popen(command, env=env, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert mirror.holding.wait(60)
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=60)
    mirror.released.set()
    assert (process.returncode, out, err) == (130, "", "")
    assert list((tmp_path / "data/bin/.arriving").glob("*.part"))
