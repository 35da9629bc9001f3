"""Measures what an engine takes while it runs: what its log tells, and what its processes hold."""

from __future__ import annotations

from pathlib import Path

import attrs
import trio

from gpustack.domain.memory_use import MeasuredMemory, TermBytes
from gpustack.domain.report import InstanceReport
from gpustack.domain.unit import MIB
from gpustack.engines.engine import TellsMemory
from gpustack.engines.registry import engine_by_name
from gpustack.hardware.process_memory import anonymous_memory
from gpustack.nursery.limiter import threads
from gpustack.nursery.process_identity import members
from gpustack.nursery.quarantine import Quarantine
from gpustack.worker.context import WorkerContext
from gpustack.worker.engine_process import EngineProcess, EngineSeat

_LONGEST_LOG = 8 << 20
"""Bytes at the beginning of a log that are looked through: what an engine says of itself it says when it starts."""
FIRST_AFTER = 2.0
"""Seconds after an engine is ready."""
_EARLY, _EARLY_LOOKS, _LATER = 15.0, 4, 60.0
"""Seconds between the first looks, since devices are looked at every 10 s, and between those that follow."""
_NOTABLE = 64 * MIB
_threads = threads("engine memory", 1)


@attrs.define
class MemoryMeasuring:
    """Reports what one engine takes: once it is ready, and whenever it has grown by a sixteenth and 64 MiB since.

    One that was adopted was measured by the daemon that started it. The members of a gang are not: their log speaks of
    devices of others.
    """

    _engine: EngineProcess
    _seat: EngineSeat
    _context: WorkerContext
    _known: MeasuredMemory | None = None
    _faults: Quarantine = attrs.field(factory=lambda: Quarantine("engine memory"))

    async def keep(self) -> None:
        """Measure for ever."""
        placement = self._seat.instance.placement
        if self._engine.adopted or placement is None or placement.subordinates:
            await trio.sleep_forever()
        await trio.sleep(FIRST_AFTER)
        looks = 0
        while True:
            with self._faults.row("a look"):
                await self._look()
            looks += 1
            await trio.sleep(_EARLY if looks <= _EARLY_LOOKS else _LATER)

    async def _look(self) -> None:
        known, group = self._known, self._engine.group
        devices = self._context.device_use(self._seat.instance.id, self._seat.member)
        host = await _threads.run(_host_memory, group.pid, group.state.start_ticks)
        if known is None:
            terms = await _threads.run(self._told)
            now = MeasuredMemory(
                build=self._engine.build,
                terms=terms,
                host=host,
                host_peak=host,
                devices=devices,
                devices_peak=devices,
            )
        else:
            now = attrs.evolve(
                known,
                host_peak=_peak(known.host_peak, host),
                devices=devices if known.devices is None else known.devices,
                devices_peak=_peak(known.devices_peak, devices),
            )
        if now != known:
            self._known = now
            self._context.reports.add_instance(self._seat.instance.id, InstanceReport(memory=now))

    def _told(self) -> TermBytes:
        """What its log says. Blocks."""
        engine = engine_by_name(self._engine.engine_name)
        if engine is None or not isinstance(engine, TellsMemory):
            return {}
        on_devices = bool(self._seat.share.gpu_indexes)
        return engine.memory_told(_beginning(self._engine.log_file), on_devices=on_devices)


def _beginning(log: Path) -> list[str]:
    try:
        with log.open("rb") as file:
            return file.read(_LONGEST_LOG).decode(errors="replace").splitlines()
    except OSError:
        return []


def _host_memory(group: int, since: int | None) -> int | None:
    return anonymous_memory(members(group, since) or ())


def _peak(before: int | None, now: int | None) -> int | None:
    """The larger of two, where the newer one is so much larger that it is worth telling."""
    if before is None or now is None:
        return now if before is None else before
    return now if now >= before + max(_NOTABLE, before // 16) else before
