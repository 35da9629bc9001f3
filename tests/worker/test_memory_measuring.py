"""What an engine takes is told once it is ready, and again when it has grown notably."""

from __future__ import annotations

import os
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import trio

from gpustack.domain.instance import ModelInstance, Placement, Subordinate
from gpustack.domain.memory_use import MeasuredMemory
from gpustack.domain.report import InstanceReport
from gpustack.domain.unit import GIB, MIB
from gpustack.nursery.process_identity import read_stat
from gpustack.worker.engine_process import EngineSeat
from gpustack.worker.memory_measuring import MemoryMeasuring
from tests.engines.test_memory_log import ON_DEVICES
from tests.policy.worlds import instance, model

PLACED = instance(5, model(), on=3)


class Measured:
    """A measuring of this very process, and what it reports; ``held`` is what the driver says of it."""

    def __init__(self, log: Path, record: ModelInstance = PLACED, *, adopted: bool = False) -> None:
        stat = read_stat(os.getpid())
        assert stat is not None
        group = SimpleNamespace(pid=stat.group, state=SimpleNamespace(start_ticks=None))
        engine = SimpleNamespace(
            group=group, adopted=adopted, engine_name="llama.cpp", build="9300", log_file=log
        )
        self.held: int | None = None
        self.told: list[MeasuredMemory] = []
        context = SimpleNamespace(
            device_use=lambda key, member: self.held if (key, member) == (5, 0) else None,
            reports=SimpleNamespace(add_instance=self._report),
        )
        parts: tuple[Any, ...] = (engine, EngineSeat(instance=record), context)
        self.measuring = MemoryMeasuring(*parts)

    def _report(self, key: int, report: InstanceReport) -> None:
        assert key == 5 and report.memory is not None
        self.told.append(report.memory)

    async def look(self, held: int | None) -> MeasuredMemory | None:
        """What is told after a look; ``None`` if nothing is."""
        before, self.held = len(self.told), held
        await self.measuring._look()
        return self.told[-1] if len(self.told) > before else None


@pytest.fixture
def log(tmp_path: Path) -> Path:
    found = tmp_path / "5.log"
    found.write_text(ON_DEVICES + "\N{SNOWMAN} model buffer size = 1\n")
    return found


async def test_it_is_told_when_it_is_ready_and_when_it_has_grown(log: Path) -> None:
    one = Measured(log)
    first = await one.look(None)
    assert first is not None and first.build == "9300"
    assert first.terms["devices compute"] == 410 * MIB
    assert first.devices is None
    seen = await one.look(10 * GIB)
    assert seen is not None and (seen.devices, seen.devices_peak) == (10 * GIB, 10 * GIB)
    assert await one.look(10 * GIB + 500 * MIB) is None
    grown = await one.look(11 * GIB)
    assert grown is not None and (grown.devices, grown.devices_peak) == (10 * GIB, 11 * GIB)
    assert await one.look(GIB) is None
    assert await one.look(None) is None


async def test_without_a_log_the_rest_is_told(tmp_path: Path) -> None:
    told = await Measured(tmp_path / "none.log").look(GIB)
    assert told is not None and (told.terms, told.devices) == ({}, GIB)


@pytest.mark.parametrize("case", ["adopted", "gang"])
async def test_what_is_not_comparable_is_not_measured(log: Path, case: str, autojump_clock: object) -> None:
    gang = Placement(worker_id=3, subordinates=(Subordinate(worker_id=4),))
    record = instance(5, model(), placement=gang) if case == "gang" else PLACED
    one = Measured(log, record, adopted=case == "adopted")
    with trio.move_on_after(3600):
        await one.measuring.keep()
    assert one.told == []
