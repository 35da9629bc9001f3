"""What somebody meant who wrote another word."""

from __future__ import annotations

import pytest

from gpustack.cli.command_line import edit_distance, nearest
from gpustack.cli.main import main, names


@pytest.mark.parametrize(
    ("one", "other", "count"),
    [
        ("", "", 0),
        ("", "ab", 2),
        ("run", "run", 0),
        ("rum", "run", 1),
        ("rnu", "run", 1),
        ("rm", "run", 2),
        ("abc", "cab", 2),
    ],
)
def test_slips_of_the_hand_are_counted(one: str, other: str, count: int) -> None:
    assert edit_distance(one, other) == edit_distance(other, one) == count


@pytest.mark.parametrize(
    ("word", "meant"),
    [
        ("rum", "run"),
        ("rnu", "run"),
        ("chta", "chat"),
        ("explian", "explain"),
        ("lst", "ls"),
        ("sart", "start"),
        ("worker", "workers"),
        ("dowload-tools", "download-tools"),
        ("kubernetes", None),
        ("xyz", None),
    ],
)
def test_a_mistyped_command_is_told_with_the_one_that_was_meant(word: str, meant: str | None) -> None:
    assert nearest(word, names()) == meant


def test_options_and_words_behind_a_command_are_told_too(capsys: pytest.CaptureFixture[str]) -> None:
    for argv, said in (
        (["run", "--detatch", "x"], "gpustack run does not understand --detatch; did you mean --detach?"),
        (["ls", "--ouput=json"], "gpustack ls does not understand --ouput; did you mean --output?"),
        (["workers", "bra", "x"], "gpustack workers does not understand bra; did you mean bar?"),
        (["completion", "fihs"], "gpustack completion does not understand fihs; did you mean fish?"),
        (["completion", "tcsh"], "gpustack completion does not understand tcsh"),
        (["keys", "create"], "gpustack keys: an argument is missing"),
        (["db", "migrate"], "gpustack db does not understand migrate"),
        (["ls", "everything"], "gpustack ls does not understand everything"),
        (["start", "--prot=1"], "flag --prot: is not known; did you mean --port?"),
    ):
        assert main(argv, {}) == 2
        assert said in "".join(capsys.readouterr().err.splitlines()[:2])
