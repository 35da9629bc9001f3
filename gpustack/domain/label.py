"""Labels of workers and the selectors that match them."""

from __future__ import annotations

from collections.abc import Mapping


def matches(selector: Mapping[str, str], labels: Mapping[str, str]) -> bool:
    """Every pair of ``selector`` stands in ``labels``; an empty selector matches all."""
    return all(labels.get(key) == value for key, value in selector.items())


def unmatched(selector: Mapping[str, str], labels: Mapping[str, str]) -> dict[str, str]:
    """The pairs of ``selector`` that ``labels`` lacks or has otherwise."""
    return {key: value for key, value in selector.items() if labels.get(key) != value}
