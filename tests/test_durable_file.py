"""One way to replace a file: gpustack/durable_file.py."""

from __future__ import annotations

import ast
import errno
import os
import stat
from collections.abc import Iterator
from pathlib import Path

import pytest

from gpustack.durable_file import draft_of, put_in_place, replacing, write

PRODUCT = Path(__file__).resolve().parent.parent / "gpustack"

RENAMED_FOR_ANOTHER_REASON = {
    ("artifacts/tools.py", "ready"): "a folder of programs gets its name",
    ("artifacts/tools.py", "draft"): "a symbolic link is replaced",
    ("artifacts/tools.py", "found.parent"): "a folder of programs is moved",
    ("artifacts/tools.py", "path"): "libraries are moved beside the programs",
    ("cli/newer_database.py", "source"): "the database of a newer program is kept under another name",
    ("config/secret.py", "path"): "the former secret is kept under another name",
    ("nursery/log_file.py", "younger"): "logs are rotated",
    ("server/row_write.py", "path"): "a spool file is claimed by the daemon that reads it",
}


def test_a_file_is_replaced_with_the_permissions_given(tmp_path: Path) -> None:
    path = tmp_path / "token"
    write(path, "old")
    write(path, b"new", mode=0o640)
    assert path.read_bytes() == b"new"
    assert stat.S_IMODE(path.stat().st_mode) == 0o640 & ~_umask()
    assert _names(tmp_path) == ["token"]


def test_a_write_that_fails_leaves_the_old_content_and_no_draft(tmp_path: Path) -> None:
    path = tmp_path / "token"
    write(path, "old")
    with pytest.raises(ZeroDivisionError), replacing(path) as file:
        file.write(b"ne")
        assert path.read_text() == "old"
        raise ZeroDivisionError
    assert path.read_text() == "old"
    assert _names(tmp_path) == ["token"]


def test_a_draft_that_a_crash_left_is_in_nobodys_way_and_no_link_is_followed(tmp_path: Path) -> None:
    path, elsewhere = tmp_path / "token", tmp_path / "elsewhere"
    elsewhere.write_text("kept")
    draft_of(path).symlink_to(elsewhere)
    write(path, "whole")
    assert (path.read_text(), elsewhere.read_text()) == ("whole", "kept")
    assert not draft_of(path).exists()


def test_content_and_name_are_on_disk_in_this_order(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path, steps = tmp_path / "token", []

    def synced(fd: int) -> None:
        steps.append((Path(f"/proc/self/fd/{fd}").readlink(), path.exists()))

    monkeypatch.setattr(os, "fsync", synced)
    write(path, "whole")
    assert steps == [(draft_of(path), False), (tmp_path, True)]


def test_a_finished_file_is_synced_before_it_gets_its_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    part, path, steps = tmp_path / "a.part", tmp_path / "a", []
    part.write_text("whole")

    def synced(fd: int) -> None:
        steps.append((Path(f"/proc/self/fd/{fd}").readlink(), path.exists()))

    monkeypatch.setattr(os, "fsync", synced)
    put_in_place(part, path)
    assert (path.read_text(), part.exists()) == ("whole", False)
    assert steps == [(part, False), (tmp_path, True)]


@pytest.mark.parametrize("fault", [errno.EACCES, errno.EINVAL])
def test_a_folder_that_cannot_be_synced_has_the_new_file_all_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fault: int
) -> None:
    """One that may be written in but not read, or of a file system that has no such call."""
    opened = os.open

    def refuse(path: object, flags: int, *more: int) -> int:
        if flags & os.O_DIRECTORY:
            raise OSError(fault, os.strerror(fault))
        return opened(path, flags, *more)  # type: ignore[arg-type]

    monkeypatch.setattr(os, "open", refuse)
    write(tmp_path / "token", "whole")
    monkeypatch.undo()
    assert (tmp_path / "token").read_text() == "whole"
    monkeypatch.setattr(os, "fsync", _no_space)
    with pytest.raises(OSError, match="No space"):
        write(tmp_path / "token", "other")


def test_a_file_that_is_there_is_kept_when_asked_for(tmp_path: Path) -> None:
    path = tmp_path / "backup"
    path.write_text("old")
    with pytest.raises(FileExistsError), replacing(path, overwrite=False) as file:
        file.write(b"new")
    assert path.read_text() == "old"
    assert _names(tmp_path) == ["backup"]


def test_no_other_module_replaces_a_file() -> None:
    """A rename elsewhere has a reason of its own, which stands above."""
    found = {
        (path.relative_to(PRODUCT).as_posix(), receiver)
        for path in sorted(PRODUCT.rglob("*.py"))
        if path.name != "durable_file.py"
        for receiver in _renames(ast.parse(path.read_text("utf-8")))
    }
    assert found == set(RENAMED_FOR_ANOTHER_REASON)


def _renames(tree: ast.Module) -> Iterator[str]:
    """What is renamed: ``x.rename(y)``, ``x.replace(y)`` with one argument (text takes two), and those of ``os``."""
    for node in ast.walk(tree):
        if not isinstance(node, ast.Call) or not isinstance(node.func, ast.Attribute) or node.keywords:
            continue
        receiver = ast.unparse(node.func.value)
        if (receiver == "os" and node.func.attr in ("rename", "replace", "renames", "link")) or (
            node.func.attr in ("rename", "replace")
            and len(node.args) == 1
            and not _is_configuration(receiver)
        ):
            yield receiver


def _is_configuration(receiver: str) -> bool:
    return receiver == "_config(call)"  # MetricMapFile.replace takes a document


def _names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def _no_space(fd: int) -> None:
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def _umask() -> int:
    present = os.umask(0)
    os.umask(present)
    return present
