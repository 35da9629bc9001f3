"""What tests on a real GPU share: the card, and our look at it."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterator
from contextlib import ExitStack
from datetime import UTC, datetime
from pathlib import Path

import pytest

from gpustack.domain.device import Device
from gpustack.hardware.detection import DeviceMonitor
from tests.child import child, environment, said
from tests.gpu.card import Card, cards

Look = Callable[[], Awaitable[Device]]


@pytest.fixture
def card() -> Card:
    """The first card, as it is at the start of the test. One that is cut into instances serves no test here."""
    first = cards()[0]
    if first.is_divided:
        pytest.skip("this GPU is divided into instances (MIG): a program sees those, not the GPU")
    return first


@pytest.fixture
def look(card: Card) -> Look:
    """What our detector, in its child process, says of that card now."""

    async def seen() -> Device:
        found = await DeviceMonitor(deadline=60.0).look(datetime.now(UTC))
        assert found.faults == ()
        (device,) = (one for one in found.devices if one.uuid == card.uuid)
        return device

    return seen


@pytest.fixture
def stranger(card: Card, tmp_path: Path) -> Iterator[Callable[[str, int], int]]:
    """A process on the card that is none of ours: ``stranger("hold", BYTES)`` returns its pid once it has them."""
    with ExitStack() as stack:

        def start(verb: str, size: int) -> int:
            process = stack.enter_context(
                child(
                    ["-m", "tests.gpu.program", verb, str(size)],
                    env=environment(CUDA_VISIBLE_DEVICES=card.uuid),
                    stderr=tmp_path / "stranger.log",
                )
            )
            try:
                assert said(process, within=60.0) == f"{verb}ing"
            except AssertionError as error:
                raise AssertionError(f"{error}\n{(tmp_path / 'stranger.log').read_text()}") from None
            return process.pid

        yield start
