"""The file of an administrator's own mapping: written whole or not at all, and never what stops the daemon."""

from __future__ import annotations

import logging
import stat
from pathlib import Path
from typing import Any

import pytest
import trio
import yaml

from gpustack.errors import Invalid, Unavailable
from gpustack.metrics.mapping import default_map
from gpustack.metrics.mapping_file import FILE, MetricMapFile

OWN: dict[str, Any] = {
    "gpustack_metrics": {"gpustack:depth": {"type": "Gauge", "description": "How deep."}},
    "runtime_mapping": {"custom": {"*": {"mine:depth": "gpustack:depth"}}},
}


async def test_without_a_file_the_default_holds(tmp_path: Path) -> None:
    assert await MetricMapFile.within(tmp_path).current() == default_map()


async def test_what_is_put_is_there_after_a_restart_and_readable_by_its_owner_alone(tmp_path: Path) -> None:
    await MetricMapFile.within(tmp_path).replace(OWN)
    assert (await MetricMapFile.within(tmp_path).current()).document() == OWN
    assert stat.S_IMODE((tmp_path / FILE).stat().st_mode) == 0o600
    assert yaml.safe_load((tmp_path / FILE).read_text()) == OWN
    assert [path.name for path in await trio.Path(tmp_path).iterdir()] == [FILE]


async def test_an_empty_object_brings_the_default_back(tmp_path: Path) -> None:
    config = MetricMapFile.within(tmp_path)
    await config.replace(OWN)
    await config.replace({})
    await config.replace({})
    assert await config.current() == default_map()
    assert not (tmp_path / FILE).exists()


async def test_a_wrong_mapping_changes_nothing(tmp_path: Path) -> None:
    config = MetricMapFile.within(tmp_path)
    await config.replace(OWN)
    with pytest.raises(Invalid):
        await config.replace({"runtime_mapping": {"vllm": {"*": {"a": "b"}}}})
    assert (await config.current()).document() == OWN


@pytest.mark.parametrize(
    "text", ["", "- a list", "a: [", "gpustack_metrics: 3", "\x00", "!!python/object/apply:os.getpid []"]
)
async def test_a_file_that_cannot_be_used_is_named_and_the_default_holds(
    tmp_path: Path, text: str, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / FILE).write_text(text)
    with caplog.at_level(logging.ERROR):
        assert await MetricMapFile.within(tmp_path).current() == default_map()
    assert FILE in caplog.text


async def test_an_edit_by_hand_holds_from_the_next_look_on(tmp_path: Path) -> None:
    config = MetricMapFile.within(tmp_path)
    await config.current()
    (tmp_path / FILE).write_text(yaml.safe_dump(OWN))
    assert (await config.current()).document() == OWN


async def test_a_place_that_cannot_be_written_is_said(tmp_path: Path) -> None:
    (tmp_path / FILE).mkdir()
    with pytest.raises(Unavailable, match=FILE):
        await MetricMapFile.within(tmp_path).replace(OWN)
