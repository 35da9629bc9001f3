"""How an engine ended, in one sentence that quotes its last words."""

from __future__ import annotations

from pathlib import Path

import pytest

from gpustack.nursery.group import Exit
from gpustack.worker.obituary import last_words, obituary


@pytest.mark.parametrize(
    ("how", "ready", "sentence"),
    [
        (Exit(code=1, signal=None), True, "The engine exited with code 1: out of memory"),
        (
            Exit(code=0, signal=None),
            False,
            "The engine exited with code 0 before it was ready: out of memory",
        ),
        (
            Exit(code=None, signal=9),
            True,
            "The engine was ended by SIGKILL, which the kernel sends when memory runs out; its log ends: out of memory",
        ),
        (
            Exit(code=None, signal=200),
            True,
            "The engine was ended by signal 200; its log ends: out of memory",
        ),
        (Exit(code=None, signal=None), True, "The engine ended: out of memory"),
    ],
)
def test_each_way_to_end(how: Exit, ready: bool, sentence: str, tmp_path: Path) -> None:
    (tmp_path / "a.log").write_text("loading\nout of memory\n\n")
    assert obituary(how, tmp_path / "a.log", ready=ready) == sentence


def test_a_silent_engine_has_no_last_words(tmp_path: Path) -> None:
    how = Exit(code=3, signal=None)
    assert (
        obituary(how, tmp_path / "none.log", ready=True) == "The engine exited with code 3; its log is empty"
    )


def test_last_words_are_short_and_plain(tmp_path: Path) -> None:
    log = tmp_path / "a.log"
    log.write_bytes(b"x" * 10_000 + b"\n\x1b[31mred\x1b[0m \xff " + b"y" * 1000 + b"\n \n")
    words = last_words(log)
    assert words.startswith("[31mred[0m")
    assert len(words) == 300 and words.isprintable()


def test_the_cause_is_told_rather_than_what_follows_from_it(tmp_path: Path) -> None:
    (tmp_path / "a.log").write_text(
        "0.00 I srv  init: loading model\n"
        "0.01 E llama_model_load: error loading model: unknown model architecture: 'new'\n"
        "0.02 E srv  load_model: failed to load model\n"
    )
    assert last_words(tmp_path / "a.log") == "unknown model architecture: 'new'"
