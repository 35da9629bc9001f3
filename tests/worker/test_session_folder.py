"""The files that an engine is promised: there before it starts, readable by its user alone, gone with it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from gpustack.engines.engine import FolderView, HealthPolicy, LaunchSpec
from gpustack.errors import Unavailable
from gpustack.worker import session_folder

HEALTH = HealthPolicy(readiness=None, liveness=None, start_deadline=1, stop_grace=1)


def test_files_and_changed_views_are_written_and_what_was_there_before_is_not(tmp_path: Path) -> None:
    weights = tmp_path / "weights"
    weights.mkdir()
    (weights / "model.safetensors").write_bytes(b"w")
    (weights / "config.json").write_text('{"a": 1, "b": {"c": 2}}')
    folder = session_folder.of(tmp_path / "instance-7.json")
    folder.mkdir()
    (folder / "old").touch()
    view = FolderView(
        source=str(weights), changes={"config.json": {"b": 3}, "generation_config.json": {"top_p": 1}}
    )
    launch = LaunchSpec(
        argv=("x",), env={}, health=HEALTH, files={"service.json": "{}"}, views={"weights": view}
    )
    session_folder.fill(folder, launch)

    assert sorted(path.name for path in folder.iterdir()) == ["service.json", "weights"]
    assert (folder.stat().st_mode & 0o777, (folder / "service.json").stat().st_mode & 0o777) == (0o700, 0o600)
    seen = folder / "weights"
    assert (seen / "model.safetensors").read_bytes() == b"w"
    assert json.loads((seen / "config.json").read_text()) == {"a": 1, "b": 3}
    assert json.loads((seen / "generation_config.json").read_text()) == {"top_p": 1}
    assert json.loads((weights / "config.json").read_text())["b"] == {"c": 2}, "the model's own file stays"

    session_folder.remove(folder)
    assert not folder.exists() and (weights / "model.safetensors").exists()
    session_folder.remove(folder)


@pytest.mark.parametrize("text", ["[1]", "{", '"x"', "[" * 200_000])
def test_json_that_cannot_be_changed_is_a_sentence(tmp_path: Path, text: str) -> None:
    (tmp_path / "config.json").write_text(text)
    view = FolderView(source=str(tmp_path), changes={"config.json": {"a": 1}})
    launch = LaunchSpec(argv=("x",), env={}, health=HEALTH, views={"weights": view})
    with pytest.raises(Unavailable, match=r"config\.json .*cannot be changed for the engine"):
        session_folder.fill(tmp_path / "made", launch)
