"""Every option, error, transition, metric and route is in the docs, and the docs tell of nothing else."""

from __future__ import annotations

import importlib
import importlib.util
from types import ModuleType

import pytest

from gpustack import errors
from tests.attacks import written_anew
from tests.documents import DOCS, api, lifecycle, metrics, options, rows, words


def built(module: str) -> ModuleType:
    """The module, or the test is skipped: the part of the product it documents is not there yet."""
    parent = module.rpartition(".")[0]
    if importlib.util.find_spec(parent) is None or importlib.util.find_spec(module) is None:
        pytest.skip(f"{module} is not built yet")
    return importlib.import_module(module)


def test_every_option_is_in_its_document() -> None:
    declared, option = built("gpustack.config.options"), built("gpustack.config.option")
    assert (DOCS / "options.md").read_text() == options(), "run: make docs"
    flags = {word.split()[0] for word in words("options.md") if word.startswith("--")}
    every = option.table(declared.Options)
    assert every
    assert {found.flag for found in every if found.flag} <= flags
    assert {found.env for found in every} <= words("options.md")


def test_every_error_is_in_its_document() -> None:
    classes = {
        name
        for name, found in vars(errors).items()
        if isinstance(found, type) and issubclass(found, errors.GpustackError)
    } - {"GpustackError"}
    assert {row[0] for row in rows("errors.md")} == classes


def test_errors_are_documented_with_their_status_and_reason() -> None:
    problems = built("gpustack.api.problems")
    told = {row[0]: (int(row[1]), row[2]) for row in rows("errors.md")}
    assert told == {found.__name__: answer for found, answer in problems.REASONS.items()}


def test_every_transition_is_in_its_document() -> None:
    assert (DOCS / "lifecycle.md").read_text() == lifecycle(), "run: make docs"


def test_every_metric_is_in_its_document() -> None:
    registry = built("gpustack.metrics.registry")
    names = {metric.name for metric in registry.METRICS}
    assert names
    assert {row[0] for row in rows("metrics.md")} == names
    assert (DOCS / "metrics.md").read_text() == metrics(), "run: make docs"


def test_every_route_is_in_its_document() -> None:
    built("gpustack.api.resource")
    built("gpustack.gateway.path")
    assert (DOCS / "api.md").read_text() == api(), "run: make docs"


def test_every_attack_is_in_its_document() -> None:
    assert (DOCS / "attacks.md").read_text() == written_anew(), "run: make docs"
