"""State files come back as they were, or say why not."""

from __future__ import annotations

import json
import os
import shutil
from datetime import UTC, datetime
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from gpustack.nursery import (
    GroupState,
    UnreadableState,
    forget_state,
    read_state,
    read_states,
    write_state,
)

STATE = GroupState(
    pid=4711,
    boot_id="b",
    start_ticks=99,
    started_at=datetime(2026, 1, 2, 3, 4, 5, 6, tzinfo=UTC),
    port=8000,
    generation=2,
    meta={"instance": "größe"},
)


def test_a_state_survives_the_way_to_disk_and_back(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    write_state(path, STATE)
    got = read_state(path)
    assert got == STATE
    assert isinstance(got, GroupState)
    assert got.path == path
    assert path.stat().st_mode & 0o777 == 0o600
    forget_state(path)
    forget_state(path)
    assert list(tmp_path.iterdir()) == []


def test_a_leftover_of_a_crash_while_writing_neither_shows_nor_hinders(tmp_path: Path) -> None:
    (tmp_path / ".a.json.draft").write_text("half")
    assert read_states(tmp_path) == []
    write_state(tmp_path / "a.json", STATE)
    assert read_states(tmp_path) == [STATE]


def test_an_absent_folder_holds_no_states(tmp_path: Path) -> None:
    assert read_states(tmp_path / "absent") == []


def _document(**change: object) -> str:
    whole = {
        "pid": 4711,
        "boot_id": "b",
        "start_ticks": 9,
        "started_at": "2026-01-02T03:04:05+00:00",
    }
    return json.dumps({**whole, **change})


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        (b"", "Expecting value"),
        (b'"\xff"', "codec"),
        (b"[]", "not an object"),
        (b"[" * 100_000, "nested"),
        (b" " * 300_000, "longer than"),
        (_document(pid=0).encode(), "ordinary"),
        (_document(pid=1).encode(), "ordinary"),
        (_document(pid=-5).encode(), "ordinary"),
        (_document(pid=True).encode(), "wrong kind"),
        (_document(pid=None).encode(), "ordinary"),
        (_document(start_ticks="9").encode(), "wrong kind"),
        (_document(meta={"a": 1}).encode(), "other than text"),
        (_document(started_at="yesterday").encode(), "isoformat"),
        (_document(started_at="2026-01-02T03:04:05").encode(), "time zone"),
    ],
)
def test_a_file_that_makes_no_sense_is_reported_beside_the_good_ones(
    tmp_path: Path, text: bytes, reason: str
) -> None:
    (tmp_path / "bad.json").write_bytes(text)
    write_state(tmp_path / "good.json", STATE)
    bad, good = read_states(tmp_path)
    assert good == STATE
    assert isinstance(bad, UnreadableState)
    assert bad.path.name == "bad.json"
    assert reason in bad.reason


def test_links_and_pipes_are_not_read(tmp_path: Path) -> None:
    write_state(tmp_path / "elsewhere", STATE)
    (tmp_path / "link.json").symlink_to(tmp_path / "elsewhere")
    os.mkfifo(tmp_path / "pipe.json")
    (tmp_path / "folder.json").mkdir()
    assert all(isinstance(one, UnreadableState) for one in read_states(tmp_path))
    assert len(read_states(tmp_path)) == 3


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.recursive(st.none() | st.booleans() | st.integers() | st.text(), st.lists), st.text(max_size=20))
def test_law_reading_never_raises(tmp_path: Path, value: object, key: str) -> None:
    path = tmp_path / "a.json"
    for field in ("pid", "started_at", "meta", key):
        path.write_text(_document(**{field: value}))
        assert isinstance(read_state(path), GroupState | UnreadableState)


def test_a_state_of_a_former_version_is_read_whatever_else_it_holds(tmp_path: Path) -> None:
    """They had the digest of a command, which nobody compared."""
    path = tmp_path / "a.json"
    path.write_text(_document(command_hash="c"))
    former = read_state(path)
    path.write_text(_document())
    assert former == read_state(path)
    assert isinstance(former, GroupState)


def test_in_a_copy_of_its_folder_a_state_speaks_of_nobodys_process(tmp_path: Path) -> None:
    """A cloned data directory on the same machine would have the clone's daemon end the original's engines."""
    folder = tmp_path / "engines"
    folder.mkdir()
    write_state(folder / "instance-1.json", STATE)
    shutil.copytree(folder, tmp_path / "copy")
    (copied,) = read_states(tmp_path / "copy")
    assert isinstance(copied, UnreadableState)
    assert "another data directory" in copied.reason
    folder.rename(tmp_path / "moved")
    (moved,) = read_states(tmp_path / "moved")
    assert moved == STATE


def test_a_state_of_a_version_that_named_no_folder_holds(tmp_path: Path) -> None:
    path = tmp_path / "instance-1.json"
    write_state(path, STATE)
    document = json.loads(path.read_text())
    del document["folder"]
    path.write_text(json.dumps(document))
    assert read_state(path) == STATE
