"""A worker fetches llama.cpp's programs when told where from, once, and goes on trying while it cannot."""

from __future__ import annotations

import logging
import random
from collections.abc import Sequence
from pathlib import Path

import pytest
import trio

from gpustack.artifacts.tools import Tools
from gpustack.domain.device import Device
from gpustack.worker.tool_fetcher import ToolFetcher, ToolSettings, platform_of
from tests.fakes.mirror import TAG, llama_server, running_mirror, tarball


async def no_devices() -> Sequence[Device]:
    return ()


async def fine(program: Path) -> str | None:
    return None


def fetch_of(tmp_path: Path, base: str | None, *, static: bool = False) -> ToolFetcher:
    return ToolFetcher(
        tools=Tools(tmp_path / "bin", random.Random(1)),
        settings=ToolSettings(base=base, static=static),
        devices=no_devices,
        try_out=fine,
        rng=random.Random(1),
    )


async def until_said(caplog: pytest.LogCaptureFixture, words: str) -> None:
    with trio.fail_after(60):
        while words not in caplog.text:  # noqa: ASYNC110  # a log has no event
            await trio.sleep(0.01)


async def test_it_fetches_once_and_finds_what_is_there_at_the_next_start(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    with running_mirror() as mirror:
        for arch in ("x64", "arm64"):
            mirror.add(f"llama-{TAG}-bin-ubuntu-{arch}.tar.gz", tarball({"llama-server": llama_server()}))
        mirror.add_hashes()
        async with trio.open_nursery() as nursery:
            await nursery.start(fetch_of(tmp_path, mirror.url).run)
            await until_said(caplog, "The tools are here")
            nursery.cancel_scope.cancel()
        before = len(mirror.log)
        caplog.clear()
        async with trio.open_nursery() as nursery:
            await nursery.start(fetch_of(tmp_path, mirror.url, static=True).run)
            await until_said(caplog, "no statically linked build of llama.cpp is here")
            nursery.cancel_scope.cancel()
        assert len(mirror.log) == before


async def test_a_mirror_that_cannot_be_reached_is_told_and_tried_again(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async with trio.open_nursery() as nursery:
        await nursery.start(fetch_of(tmp_path, "http://127.0.0.1:9").run)
        await until_said(
            caplog, "The tools could not be fetched; trying again in 15 s: reason=http://127.0.0.1:9/"
        )
        nursery.cancel_scope.cancel()


def test_the_devices_decide_which_build_is_meant() -> None:
    gpu = Device(index=0, name="H200", vendor="NVIDIA", type="cuda", driver_version="570.1")
    assert (platform_of([gpu]).device, platform_of([gpu]).newest) == ("cuda", 12)
    assert platform_of([gpu], "13.0").newest == 13
    lost = Device(index=0, name="H200", vendor="NVIDIA", type="cuda", fault="lost")
    assert platform_of([lost]).device == platform_of([]).device == "cpu"
