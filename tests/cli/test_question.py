"""What is typed in a chat: a question, or a word that steers."""

from __future__ import annotations

import pytest

from gpustack.cli.question import COMMANDS, ChatCommand, Question, parse_line


@pytest.mark.parametrize(("name", "spelling"), [(n, one) for n, all_ in COMMANDS.items() for one in all_])
def test_every_spelling_of_a_command_is_understood(name: str, spelling: str) -> None:
    assert parse_line(f" {spelling} ") == ChatCommand(name)


@pytest.mark.parametrize(
    ("text", "advice"),
    [
        ("/halp", "There is no /halp; did you mean /help?"),
        ("/set system You are", "There is no /set; /? lists what there is."),
        ("\\quti", "There is no \\quti; did you mean \\quit?"),
        ("/clear all", "/clear takes nothing behind it."),
    ],
)
def test_words_that_look_like_commands_and_are_none_are_not_sent(text: str, advice: str) -> None:
    told = parse_line(text)
    assert isinstance(told, ChatCommand) and not told.name
    assert told.advice.startswith(advice)


@pytest.mark.parametrize(
    "text",
    [
        "hello",
        "/etc/passwd: what is it?",
        "/* what does this comment mean */",
        "// and this",
        "\\frac{1}{2} + 1?",
        "\\alpha is which letter?",
        "/help\nme",
        "what does /help do?",
        "/",
        "1/2",
    ],
)
def test_paths_comments_formulas_and_blocks_are_questions(text: str) -> None:
    assert parse_line(text) == Question(text)
