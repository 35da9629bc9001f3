"""A chat at a real terminal: lines, blocks, Ctrl-C, and what the next chat knows."""

from __future__ import annotations

import json
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.cli.shell import Shell, at_terminal
from tests.daemon import daemon
from tests.options.stream import endless_model

PASTE, END_OF_PASTE = b"\x1b[200~", b"\x1b[201~"
SENTENCE = "Hello! I am a tiny model served by this cluster."


@pytest.fixture(scope="module")
def shell(tmp_path_factory: pytest.TempPathFactory, tiny_model: Path) -> Iterator[Shell]:
    folder = tmp_path_factory.mktemp("chat")
    with daemon(folder / "data") as one:
        shell = Shell(one, folder)
        shell.good("run", "--name=tiny", "-d", str(tiny_model))
        yield shell


def history(shell: Shell) -> list[str]:
    """What was asked, which is what was kept."""
    path = shell.cwd / "state/gpustack/chat-history"
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


@pytest.fixture
def forgotten(shell: Shell) -> None:
    (shell.cwd / "state/gpustack/chat-history").unlink(missing_ok=True)


def asked(shell: Shell, model: str) -> list[dict[str, Any]]:
    """The messages of the last request that the engine of a model got."""
    import urllib.request

    (instance,) = shell.daemon.instances(model)
    with urllib.request.urlopen(f"http://127.0.0.1:{instance['port']}/_control", timeout=30) as answer:
        found: list[dict[str, Any]] = json.load(answer)["last"]["body"]["messages"]
    return found


@pytest.mark.usefixtures("forgotten")
def test_a_pasted_block_and_a_fenced_one_are_one_question_each(shell: Shell) -> None:
    pasted = PASTE + b"first\rsecond\r/bye\r" + END_OF_PASTE + b"\r"
    code, shown = at_terminal(
        shell,
        ["chat", "tiny"],
        [
            (">>> ", pasted),
            (f"{SENTENCE}\r\n", b'"""one\r'),
            ("... ", b"/bye\r"),
            ("... ", b'  two"""\r'),
            (f"{SENTENCE}\r\n", b"/bye\r"),
        ],
    )
    assert code == 0, shown
    assert history(shell) == ["first\nsecond\n/bye", "one\n/bye\n  two"]


@pytest.mark.usefixtures("forgotten")
def test_ctrl_c_throws_away_the_line_and_keeps_the_conversation(shell: Shell) -> None:
    shell.daemon.call("POST", "/v1/models", {**endless_model(), "name": "fake"})
    shell.daemon.running("fake")
    code, shown = at_terminal(
        shell,
        ["chat", "--max-tokens=5", "fake"],
        [
            (">>> ", b"remember me\r"),
            (">>> ", b"half a line\x03"),
            (">>> ", b"\x03"),
            (">>> ", b'"""half a block\r'),
            ("... ", b"\x03"),
            (">>> ", b"do you?\r"),
            (">>> ", b"\x04"),
        ],
    )
    assert code == 0, shown
    assert shown.count("(Ctrl-D or /bye leaves.)") == 1
    assert [one["content"] for one in asked(shell, "fake") if one["role"] == "user"] == [
        "remember me",
        "do you?",
    ]
    shell.good("rm", "fake")


@pytest.mark.usefixtures("forgotten")
def test_an_answer_that_is_stopped_is_part_of_the_conversation(shell: Shell) -> None:
    shell.daemon.call("POST", "/v1/models", {**endless_model(), "name": "endless"})
    shell.daemon.running("endless")
    code, shown = at_terminal(
        shell,
        ["chat", "endless"],
        [
            (">>> ", b"talk\r"),
            ("Hello from", b"\x03"),
            (">>> ", b"go on\r"),
            ("Hello from", b"\x03"),
            (">>> ", b"/bye\r"),
        ],
    )
    assert code == 0, shown
    first, partly, second = asked(shell, "endless")
    assert (first["content"], second["content"]) == ("talk", "go on")
    assert partly["role"] == "assistant" and "Hello from" in partly["content"]
    shell.good("rm", "endless")


@pytest.mark.usefixtures("forgotten")
def test_words_that_are_no_commands_are_not_sent(shell: Shell) -> None:
    code, shown = at_terminal(
        shell,
        ["chat", "tiny"],
        [(">>> ", b"/halp\r"), ("did you mean /help?", b"/?\r"), ("forget what was said", b"\\q\r")],
    )
    assert code == 0 and SENTENCE not in shown
    assert history(shell) == []


@pytest.mark.usefixtures("forgotten")
def test_the_next_chat_knows_what_was_asked_unless_it_is_not_to(shell: Shell) -> None:
    chat = [(">>> ", b"Who are you?\r"), (f"{SENTENCE}\r\n", b"/bye\r")]
    assert at_terminal(shell, ["chat", "tiny"], chat)[0] == 0
    path = shell.cwd / "state/gpustack/chat-history"
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    up = [(">>> ", b"\x1b[A\r"), (f"{SENTENCE}\r\n", b"/bye\r")]
    code, shown = at_terminal(shell, ["chat", "tiny"], up)
    assert code == 0 and "Who are you?" in shown
    assert history(shell) == ["Who are you?", "Who are you?"]
    assert at_terminal(shell, ["chat", "--no-history", "tiny"], chat)[0] == 0
    assert at_terminal(shell, ["chat", "tiny"], chat, GPUSTACK_CHAT_HISTORY="off")[0] == 0
    assert len(history(shell)) == 2


def test_a_history_that_cannot_be_kept_is_told_and_no_hindrance(shell: Shell) -> None:
    code, shown = at_terminal(
        shell,
        ["chat", "tiny"],
        [(">>> ", b"Who?\r"), (f"{SENTENCE}\r\n", b"/bye\r")],
        GPUSTACK_CHAT_HISTORY=str(shell.cwd),
    )
    assert code == 0 and "Questions are not kept" in shown


def test_how_fast_it_answers_is_told_on_request(shell: Shell) -> None:
    ran = shell("chat", "--stats", "tiny", "Who are you?")
    assert (ran.returncode, ran.stdout) == (0, f"{SENTENCE}\n")
    assert "tokens/s, first after " in ran.stderr
    assert "tokens/s" not in shell("chat", "tiny", "Who are you?").stderr
    code, shown = at_terminal(
        shell,
        ["chat", "tiny"],
        [(">>> ", b"/stats\r"), ("Answers are timed.", b"Who?\r"), (" read)", b"/bye\r")],
    )
    assert code == 0 and "tokens/s" in shown


@pytest.mark.usefixtures("forgotten")
def test_answers_that_go_elsewhere_have_no_prompts_among_them(shell: Shell) -> None:
    """There is no line editor then: a pasted block is known by how fast its lines come."""
    answers = shell.cwd / "answers"
    code, shown = at_terminal(
        shell, ["chat", "tiny"], [(">>> ", b"one\ntwo\n"), (">>> ", b"/bye\n")], answers
    )
    assert code == 0, shown
    assert answers.read_text() == f"{SENTENCE}\n"
    assert history(shell) == ["one\ntwo"]
