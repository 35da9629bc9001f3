"""Where chats keep what was asked."""

from __future__ import annotations

import json
import os
import stat
from pathlib import Path

import pytest

from gpustack.cli.history import MOST, MOST_BYTES, ChatHistory, history_of, history_path


def test_questions_are_found_again_by_the_next_chat_and_by_nobody_else(tmp_path: Path) -> None:
    first = ChatHistory(tmp_path / "new" / "state" / "chat-history")
    assert first.load() == []
    for question in ("one", "two\nlines \u2028 of \x00 ünïcode", "three"):
        first.add(question)
    ChatHistory(first.path).add("of another chat")
    assert ChatHistory(first.path).load() == [
        "one",
        "two\nlines \u2028 of \x00 ünïcode",
        "three",
        "of another chat",
    ]
    assert stat.S_IMODE(first.path.stat().st_mode) == 0o600
    assert stat.S_IMODE(first.path.parent.stat().st_mode) == 0o700


def test_a_file_that_others_can_read_is_closed_to_them(tmp_path: Path) -> None:
    path = tmp_path / "history"
    path.write_text('"old"\n')
    path.chmod(0o644)
    assert ChatHistory(path).load() == ["old"]
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_it_holds_so_many_questions_and_bytes_at_most(tmp_path: Path) -> None:
    path = tmp_path / "history"
    path.write_text("".join(f"{json.dumps(f'question {n}')}\n" for n in range(3 * MOST)))
    kept = ChatHistory(path).load()
    assert (len(kept), kept[-1]) == (MOST, f"question {3 * MOST - 1}")
    assert len(path.read_text().splitlines()) == MOST
    path.write_text(json.dumps("x" * (MOST_BYTES + 1)) + "\n" + '"last"\n')
    assert ChatHistory(path).load() == ["last"]
    ChatHistory(path).add("y" * MOST_BYTES)
    assert ChatHistory(path).load() == ["last"], "one that would fill it alone is left out"
    assert path.stat().st_size < MOST_BYTES
    assert [entry.name for entry in tmp_path.iterdir()] == ["history"]


@pytest.mark.parametrize("content", [b"\xff\xfe", b"{", b"[1]\n3\nnull\n", b'"  "\n', b"\n\n"])
def test_lines_that_are_no_questions_are_passed_over(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "history"
    path.write_bytes(content + b'\n"good"\n')
    assert ChatHistory(path).load() == ["good"]


@pytest.mark.parametrize("kind", ["link", "folder", "pipe"])
def test_what_is_no_plain_file_is_left_alone(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "history"
    if kind == "link":
        (tmp_path / "other").write_text("")
        path.symlink_to(tmp_path / "other")
    elif kind == "folder":
        path.mkdir()
    else:
        os.mkfifo(path)
    with pytest.raises(OSError):
        ChatHistory(path).add("secret")
    if kind == "link":
        assert (tmp_path / "other").read_text() == ""


def test_the_environment_says_where_or_that_there_is_none() -> None:
    assert history_path({"XDG_STATE_HOME": "/s"}) == Path("/s/gpustack/chat-history")
    assert history_path({"XDG_STATE_HOME": "relative"}) == Path.home() / ".local/state/gpustack/chat-history"
    assert history_path({"GPUSTACK_CHAT_HISTORY": "/mine"}) == Path("/mine")
    for off in ("off", "OFF", "", "0", "false"):
        assert history_of({"GPUSTACK_CHAT_HISTORY": off}) is None
