"""An archive from elsewhere lands in its folder or nowhere, whatever it claims."""

from __future__ import annotations

import gzip
import io
import os
import tarfile
from collections.abc import Callable
from pathlib import Path

import pytest

from gpustack.artifacts.archive import ArchiveLimits, pack, unpack
from gpustack.artifacts.disk import CorruptFile
from tests.fakes.mirror import tarball


def made(*members: tuple[str, bytes, str, str]) -> bytes:
    """Members as (name, type, link target, content)."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as tar:
        for name, kind, target, content in members:
            member = tarfile.TarInfo(name)
            member.type, member.linkname, member.size, member.mode = kind, target, len(content), 0o4777
            tar.addfile(member, io.BytesIO(content.encode()))
    return gzip.compress(out.getvalue())


def test_programs_keep_their_bits_and_links_and_nothing_more(tmp_path: Path) -> None:
    (tmp_path / "a.tar.gz").write_bytes(
        made(
            ("./top/bin/run", tarfile.REGTYPE, "", "#!/bin/sh\n"),
            ("./top/lib.so", tarfile.SYMTYPE, "lib.so.1", ""),
            ("./top/bin/lib.so", tarfile.SYMTYPE, "../lib.so", ""),
            ("./top/lib.so.1", tarfile.REGTYPE, "", "library"),
        )
    )
    unpack(tmp_path / "a.tar.gz", tmp_path / "out")
    assert (tmp_path / "out/top/bin/run").stat().st_mode & 0o7777 == 0o755
    assert (tmp_path / "out/top/bin/lib.so").read_text() == "library"


HOSTILE = {
    "a name that climbs": [("../evil", tarfile.REGTYPE, "", "x")],
    "an absolute name": [("/tmp/evil", tarfile.REGTYPE, "", "x")],
    "a link that climbs": [("evil", tarfile.SYMTYPE, "../..", "")],
    "an absolute link": [("evil", tarfile.SYMTYPE, "/etc", "")],
    "a link that climbs out of where another led": [
        ("a/b/c/root", tarfile.SYMTYPE, "../../..", ""),
        ("evil", tarfile.SYMTYPE, "a/b/c/root/..", ""),
    ],
    "a file below a link": [("d", tarfile.SYMTYPE, "e", ""), ("d/evil", tarfile.REGTYPE, "", "x")],
    "a hard link": [("evil", tarfile.LNKTYPE, "/etc/passwd", "")],
    "a device": [("evil", tarfile.CHRTYPE, "", "")],
    "a pipe": [("evil", tarfile.FIFOTYPE, "", "")],
    "the same name twice": [("evil", tarfile.REGTYPE, "", "x"), ("evil", tarfile.REGTYPE, "", "y")],
    "a file and a link of one name": [("evil", tarfile.REGTYPE, "", "x"), ("evil", tarfile.SYMTYPE, "f", "")],
}


@pytest.mark.attack("traversal")
@pytest.mark.parametrize("members", HOSTILE.values(), ids=HOSTILE.keys())
def test_what_would_leave_the_folder_is_refused(
    tmp_path: Path, members: list[tuple[str, bytes, str, str]]
) -> None:
    (tmp_path / "a.tar.gz").write_bytes(made(*members))
    folder = tmp_path / "inner" / "out"
    with pytest.raises(CorruptFile, match=r"a\.tar\.gz cannot be unpacked: "):
        unpack(tmp_path / "a.tar.gz", folder)
    found = {path.relative_to(tmp_path).as_posix() for path in tmp_path.rglob("*")}
    assert all(name.startswith("inner") for name in found - {"a.tar.gz"})
    assert all(
        os.path.realpath(path).startswith(str(folder.resolve()))
        for path in folder.rglob("*")
        if path.is_symlink()
    )


def endless_file() -> bytes:
    return made(("zeros", tarfile.REGTYPE, "", "\0" * (3 << 20)))


def many_members() -> bytes:
    return made(*((f"f{number}", tarfile.REGTYPE, "", "") for number in range(60)))


def huge_header() -> bytes:
    """A header of four MiB before the member, which tar readers take into memory whole."""
    return made(("./x", b"x", "", "a" * (4 << 20)), ("f", tarfile.REGTYPE, "", ""))


def huge_claim() -> bytes:
    """A file that claims more than there is; its bytes are skipped, not read."""
    member = tarfile.TarInfo("f")
    member.size = 1 << 40
    return gzip.compress(member.tobuf() + b"\0" * 1024)


@pytest.mark.attack("hub")
@pytest.mark.parametrize("bomb", [endless_file, many_members, huge_header, huge_claim])
def test_what_would_grow_without_bound_is_refused(tmp_path: Path, bomb: Callable[[], bytes]) -> None:
    (tmp_path / "a.tar.gz").write_bytes(bomb())
    with pytest.raises(CorruptFile):
        unpack(tmp_path / "a.tar.gz", tmp_path / "out", limits=ArchiveLimits(size=2 << 20, members=50))
    assert sum(path.stat().st_size for path in (tmp_path / "out").rglob("*")) <= 2 << 20


@pytest.mark.attack("hub")
@pytest.mark.parametrize("cut", [0, 1, 10, 200, -1])
def test_what_is_cut_short_or_no_archive_at_all_is_told(tmp_path: Path, cut: int) -> None:
    whole = tarball({"llama-server": os.urandom(3000)})
    (tmp_path / "a.tar.gz").write_bytes(whole[:cut] if cut else b"<html>not found</html>")
    with pytest.raises(CorruptFile, match="cannot be unpacked"):
        unpack(tmp_path / "a.tar.gz", tmp_path / "out")


def test_what_is_packed_unpacks_to_the_same_and_packs_to_the_same_bytes(tmp_path: Path) -> None:
    (tmp_path / "a.tar.gz").write_bytes(tarball({"run": b"#!", "lib.so": "lib.so.1", "lib.so.1": b"l"}))
    unpack(tmp_path / "a.tar.gz", tmp_path / "one")
    pack(tmp_path / "one", tmp_path / "b.tar.gz", top="x")
    unpack(tmp_path / "b.tar.gz", tmp_path / "two")
    top = next((tmp_path / "one").iterdir()).name
    assert (tmp_path / f"two/x/{top}/lib.so").readlink() == Path("lib.so.1")
    assert os.access(tmp_path / f"two/x/{top}/run", os.X_OK)
    pack(tmp_path / "two" / "x", tmp_path / "c.tar.gz", top="x")
    assert (tmp_path / "c.tar.gz").read_bytes() == (tmp_path / "b.tar.gz").read_bytes()
