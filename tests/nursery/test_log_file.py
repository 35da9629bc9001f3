"""Log files stay bounded, and can be followed through all that happens to them."""

from __future__ import annotations

import os
from contextlib import aclosing
from pathlib import Path

import pytest
import trio

from gpustack.nursery import LogFile, keep_trimmed, rotate_previous, tail, trim


async def _all(path: Path, lines: int | None = None) -> bytes:
    got = b""
    async with aclosing(tail(path, lines=lines)) as pieces:
        async for piece in pieces:
            got += piece
    return got


def _append(path: Path, text: bytes) -> None:
    with path.open("ab") as file:
        file.write(text)


def test_each_run_moves_the_last_ones_log_aside_and_keeps_a_few(tmp_path: Path) -> None:
    for run in range(6):
        with LogFile(tmp_path / "7.log", keep=3).opened() as fd:
            os.write(fd, f"run {run}".encode())
    assert {path.name: path.read_text() for path in tmp_path.iterdir()} == {
        "7.log": "run 5",
        "7.1.log": "run 4",
        "7.2.log": "run 3",
        "7.3.log": "run 2",
    }
    assert (tmp_path / "7.log").stat().st_mode & 0o777 == 0o600


def test_keeping_none_drops_the_last_run(tmp_path: Path) -> None:
    rotate_previous(tmp_path / "a.log", keep=0)
    _append(tmp_path / "a.log", b"x")
    rotate_previous(tmp_path / "a.log", keep=0)
    assert list(tmp_path.iterdir()) == []


def test_trimming_bounds_the_disk_while_the_writer_goes_on(tmp_path: Path) -> None:
    path = tmp_path / "a.log"
    assert not trim(path, 100)
    with LogFile(path).opened() as fd:
        for number in range(1000):
            os.write(fd, f"line {number}\n".encode())
            trim(path, 100)
            assert sum(one.stat().st_size for one in tmp_path.iterdir()) <= 200
        os.write(fd, b"last\n")
    assert path.read_bytes().endswith(b"line 999\nlast\n")
    assert b"\0" not in path.read_bytes()


async def test_a_chatty_log_is_held_to_its_limit(tmp_path: Path) -> None:
    path = tmp_path / "a.log"
    _append(path, b"x" * 500)
    with trio.fail_after(20):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(lambda: keep_trimmed(path, limit=100, period=0.01))
            for _ in range(3):
                while path.stat().st_size:  # noqa: ASYNC110  waits for the trimmer as a reader of the disk would
                    await trio.sleep(0.01)
                _append(path, b"y" * 300)
            nursery.cancel_scope.cancel()


@pytest.mark.parametrize(
    ("text", "lines", "expected"),
    [
        (b"a\nb\nc\n", 2, b"b\nc\n"),
        (b"a\nb\nc", 2, b"b\nc"),
        (b"a\nb\n", 9, b"a\nb\n"),
        (b"a\nb\n", 0, b""),
        (b"a\nb", 0, b""),
        (b"a\nb\n", None, b"a\nb\n"),
        (b"", 5, b""),
        (b"\xff\xfe\n\xf0\x9f\n", 1, b"\xf0\x9f\n"),
        (b"x" * 200_000 + b"\n" + b"y" * 100_000 + b"\n", 1, b"y" * 100_000 + b"\n"),
    ],
)
async def test_tail_gives_the_last_lines_of_any_bytes(
    tmp_path: Path, text: bytes, lines: int | None, expected: bytes
) -> None:
    _append(tmp_path / "a.log", text)
    assert await _all(tmp_path / "a.log", lines) == expected


async def test_tail_reaches_back_over_a_trim(tmp_path: Path) -> None:
    path = tmp_path / "a.log"
    _append(path, b"a\nb\nc\n")
    assert trim(path, 5)
    _append(path, b"d\n")
    assert await _all(path, 3) == b"b\nc\nd\n"
    assert await _all(path, 1) == b"d\n"
    assert await _all(path) == b"\nb\nc\nd\n"


async def test_an_absent_log_is_empty(tmp_path: Path) -> None:
    assert await _all(tmp_path / "absent.log", 5) == b""


async def test_following_goes_on_through_growth_trimming_and_a_new_run(tmp_path: Path) -> None:
    path = tmp_path / "a.log"
    with trio.fail_after(20):
        async with aclosing(tail(path, lines=1, follow=True)) as pieces:
            _append(path, b"first\n")
            assert await anext(pieces) == b"first\n"
            _append(path, b"caf\xc3")
            assert await anext(pieces) == b"caf\xc3"
            trim(path, 1)
            _append(path, b"cut\n")
            assert await anext(pieces) == b"cut\n"
            _append(path, b"end of run\n")
            rotate_previous(path)
            _append(path, b"new run\n")
            assert await anext(pieces) == b"end of run\n"
            assert await anext(pieces) == b"new run\n"
            path.unlink()
            _append(path, b"again\n")
            assert await anext(pieces) == b"again\n"
