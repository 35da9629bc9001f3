"""``docs/placement.md`` tells of every filter and score that there is, and of nothing else."""

from __future__ import annotations

from gpustack.domain.model import PlacementStrategy
from gpustack.plugins import siblings
from tests.documents import DOCS


def cells(heading: str) -> dict[str, list[str]]:
    """The rows of the table below a heading, by their first word."""
    text = (DOCS / "placement.md").read_text().split(f"## {heading}\n")[1].split("\n## ")[0]
    found = [[cell.strip() for cell in line.strip("|").split("|")] for line in text.splitlines()]
    return {row[0].strip("`"): row[1:] for row in found if row[0].startswith("`")}


def test_every_filter_is_in_the_document() -> None:
    names = {module.__name__.rpartition(".")[2] for module in siblings("gpustack.policy.filters")}
    assert cells("What rules a worker out").keys() == names


def test_every_score_is_in_the_document_with_its_weights() -> None:
    told = {name: tuple(map(float, row[1:])) for name, row in cells("Which place is taken").items()}
    assert told == {
        module.NAME: tuple(module.weight(strategy) for strategy in PlacementStrategy)
        for module in siblings("gpustack.policy.scores")
    }
