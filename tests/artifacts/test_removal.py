"""Removing stays inside the folders it is given, whatever links lie about."""

from __future__ import annotations

from pathlib import Path

import pytest

from gpustack.artifacts.removal import remove
from gpustack.errors import Forbidden


@pytest.fixture
def root(tmp_path: Path) -> Path:
    root = tmp_path / "cache"
    (root / "hub/me/m").mkdir(parents=True)
    (root / "hub/me/m/a.gguf").write_text("a")
    (tmp_path / "outside").mkdir()
    (tmp_path / "outside/precious").write_text("p")
    return root


def test_a_file_goes_with_what_is_unfinished_of_it_and_the_folders_it_leaves_empty(root: Path) -> None:
    for suffix in (".part", ".part.json", ".part.new"):
        (root / f"hub/me/m/a.gguf{suffix}").write_text("")
    assert remove(root / "hub/me/m/a.gguf", [root])
    assert list(root.iterdir()) == []


def test_folders_with_something_else_in_them_stay(root: Path) -> None:
    (root / "hub/me/other").mkdir()
    assert remove(root / "hub/me/m/a.gguf", [root])
    assert [path.name for path in (root / "hub/me").iterdir()] == ["other"]


def test_a_folder_goes_with_all_that_is_in_it(root: Path, tmp_path: Path) -> None:
    (root / "hub/me/m/link").symlink_to(tmp_path / "outside")
    assert remove(root / "hub/me/m", [root])
    assert (tmp_path / "outside/precious").exists()
    assert not (root / "hub").exists()


def test_an_unfinished_file_goes_too(root: Path) -> None:
    (root / "hub/me/m/b.gguf.part").write_text("")
    assert not remove(root / "hub/me/m/b.gguf", [root])
    assert [path.name for path in (root / "hub/me/m").iterdir()] == ["a.gguf"]


@pytest.mark.parametrize("path", ["{root}/hub/absent", "{root}/absent/a", "{root}/hub/me/m/a.gguf/x"])
def test_what_is_not_there_is_no_fault(root: Path, path: str) -> None:
    assert not remove(Path(path.format(root=root)), [root])
    assert (root / "hub/me/m/a.gguf").exists()


@pytest.mark.attack("traversal")
@pytest.mark.parametrize(
    "path",
    [
        "{out}/precious",
        "{root}",
        "{root}/..",
        "{root}/../outside/precious",
        "/",
        "outside/precious",
        "{root}-other/x",
    ],
)
def test_a_path_elsewhere_is_refused(root: Path, tmp_path: Path, path: str) -> None:
    with pytest.raises(Forbidden, match="does not lie within"):
        remove(Path(path.format(root=root, out=tmp_path / "outside")), [root])
    assert (tmp_path / "outside/precious").exists()


@pytest.mark.attack("traversal")
def test_no_link_is_followed_on_the_way(root: Path, tmp_path: Path) -> None:
    (root / "hub/me/link").symlink_to(tmp_path / "outside")
    assert not remove(root / "hub/me/link/precious", [root])
    assert (tmp_path / "outside/precious").exists()


@pytest.mark.attack("traversal")
def test_a_link_at_the_end_is_removed_itself(root: Path, tmp_path: Path) -> None:
    (root / "hub/me/m/b.gguf").symlink_to(tmp_path / "outside/precious")
    assert remove(root / "hub/me/m/b.gguf", [root])
    assert (tmp_path / "outside/precious").exists()
    assert [path.name for path in (root / "hub/me/m").iterdir()] == ["a.gguf"]


def test_the_root_itself_may_be_reached_over_a_link(root: Path, tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(root)
    assert remove(tmp_path / "link/hub/me/m/a.gguf", [tmp_path / "link"])
    assert list(root.iterdir()) == []


def test_any_of_several_roots_will_do(root: Path, tmp_path: Path) -> None:
    assert remove(tmp_path / "outside/precious", [root, tmp_path / "outside"])
    assert (tmp_path / "outside").exists()
