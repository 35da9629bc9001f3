"""The console has words of its own for every kind of thing that the server tells in sentences of English."""

from __future__ import annotations

import re
from enum import StrEnum
from pathlib import Path

import pytest

import gpustack
from gpustack.domain.artifact import FileState
from gpustack.domain.event import ObjectKind
from gpustack.domain.lifecycle import InstanceState
from gpustack.domain.worker import WorkerState
from gpustack.plugins import siblings
from gpustack.policy import attention
from gpustack.policy.attention import ActionKind, TroubleSeverity
from gpustack.policy.model_state import ModelState

WORDS = Path(__file__).parents[2] / "console" / "src" / "words"
EVENTS = Path(gpustack.__file__).parent / "policy" / "event.py"


def words(language: str, page: str) -> set[str]:
    text = (WORDS / language / f"{page}.js").read_text()
    return {quoted or bare for quoted, bare in re.findall(r"^ {2}(?:'([\w.-]+)'|(\w+)):", text, re.MULTILINE)}


def test_every_kind_of_trouble_and_every_button_has_words_in_other_languages() -> None:
    troubles = {f"trouble-{kind.KIND}" for kind in attention.kinds()}
    remedies = {f"do-{kind.KIND}" for kind in siblings("gpustack.policy.remedies")}
    actions = {f"do-{kind.value}" for kind in ActionKind}
    assert words("zh", "told") == troubles | remedies | actions


@pytest.mark.parametrize("language", ["en", "zh"])
def test_every_kind_of_event_has_words(language: str) -> None:
    of = "|".join(kind.value.removeprefix("model-") for kind in ObjectKind)
    kinds = set(re.findall(rf'"((?:{of})\.[a-z_]+)"', EVENTS.read_text()))
    assert len(kinds) > 30
    assert words(language, "happened") == kinds
    assert {f"kind-{kind.value}" for kind in ObjectKind} <= words(language, "events")


@pytest.mark.parametrize("language", ["en", "zh"])
@pytest.mark.parametrize("states", [InstanceState, ModelState, WorkerState, FileState, TroubleSeverity])
def test_every_state_has_words(language: str, states: type[StrEnum]) -> None:
    assert {state.value for state in states} <= words(language, "state")
