"""Fetches llama.cpp's programs for this worker from a mirror; until they are here, the embedded build is used."""

from __future__ import annotations

import logging
import platform
import random
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path

import attrs
import trio

from gpustack.artifacts.tool_release import Platform, newest_cuda
from gpustack.artifacts.tool_site import ReleaseSite
from gpustack.artifacts.tools import Build, BuildRequest, Tools
from gpustack.domain.device import Device
from gpustack.errors import GpustackError
from gpustack.nursery.limiter import threads
from gpustack.nursery.quarantine import Quarantine
from gpustack.remote.http import open_client_aside

log = logging.getLogger(__name__)

_FIRST_WAIT, _LONGEST_WAIT = 15.0, 900.0
_looks = threads("tools", 1)


@attrs.frozen(kw_only=True)
class ToolSettings:
    """``base`` is the mirror's address: without one nothing is fetched. ``static`` asks for a static build."""

    base: str | None
    static: bool = False
    cuda: str | None = None


@attrs.frozen(eq=False, kw_only=True)
class ToolFetcher:
    """A service: fetches the programs once, if there are none; tries again while the mirror cannot be reached."""

    tools: Tools
    settings: ToolSettings
    devices: Callable[[], Awaitable[Sequence[Device]]]
    try_out: Callable[[Path], Awaitable[str | None]]
    rng: random.Random
    faults: Quarantine = attrs.field(factory=lambda: Quarantine("tools"))
    name: str = "tools"

    async def run(self, *, task_status: trio.TaskStatus[None]) -> None:
        task_status.started()
        await self._ensure_tools()
        await trio.sleep_forever()

    async def _ensure_tools(self) -> None:
        found = await _looks.run(self.tools.installed)
        if found is not None or self.settings.base is None:
            _warn_if_not_static(found, self.settings)
            return
        wait = _FIRST_WAIT
        while True:
            with self.faults.row("fetching"):
                try:
                    build = await self._fetch()
                except GpustackError as error:
                    log.warning(
                        "The tools could not be fetched; trying again in %.0f s: reason=%s", wait, error
                    )
                else:
                    log.info("The tools are here: version=%s archive=%s", build.tag, build.name)
                    return
            await trio.sleep(wait * self.rng.uniform(0.8, 1.2))
            wait = min(wait * 2, _LONGEST_WAIT)

    async def _fetch(self) -> Build:
        request = BuildRequest(
            platform=platform_of(await self.devices(), self.settings.cuda),
            any_device=True,
            static=self.settings.static,
            site=ReleaseSite.at(self.settings.base),
        )
        async with await open_client_aside() as client:
            return await self.tools.bring(
                request, client=client, tell=lambda sentence: log.info("%s", sentence), try_out=self.try_out
            )


def platform_of(devices: Sequence[Device], cuda: str | None = None) -> Platform:
    """This machine and the type of its devices; raises ``Invalid`` where there are no tools for it."""
    usable = [device for device in devices if device.fault is None]
    first = next((device for device in usable if device.type in ("cuda", "rocm", "xpu")), None)
    kind = "cpu" if first is None else first.type
    newest = newest_cuda(None if first is None else first.driver_version, cuda)
    return Platform.of(platform.system(), platform.machine(), kind or "cpu", newest)


def _warn_if_not_static(found: Build | None, settings: ToolSettings) -> None:
    """Log that a static build is asked for, but another one is used."""
    if settings.static and not (found is not None and found.is_static):
        what = "the embedded one" if found is None else f"{found.name}, which is here,"
        log.warning(
            "GPUSTACK_DISABLE_DYNAMIC_LINK_LLAMA_BOX is set, but no statically linked build of llama.cpp is here: %s "
            "is used (gpustack download-tools fetches a static one where there is one)",
            what,
        )
