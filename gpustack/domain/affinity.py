"""Which replicas are kept apart, in the words of Kubernetes' anti-affinity of pods."""

from __future__ import annotations

from collections.abc import Mapping
from fnmatch import fnmatchcase

import attrs

HOSTNAME = "kubernetes.io/hostname"
"""The topology key that every worker has of its own."""


@attrs.frozen(kw_only=True)
class AntiAffinityTerm:
    """Models not to be beside: those of the names (``*`` stands for any characters) that carry the labels.

    Without names and labels it is the deployment itself, whose replicas are then kept apart.
    """

    models: tuple[str, ...] = ()
    match_labels: Mapping[str, str] = attrs.field(factory=dict)
    topology_key: str = HOSTNAME
    """What may not be shared: the worker, or all workers with the same value of this label. A worker without the label
    shares it with none."""

    @property
    def is_own(self) -> bool:
        """Whether it is about the replicas of the deployment itself."""
        return not self.models and not self.match_labels

    def names(self, name: str, labels: Mapping[str, str]) -> bool:
        """Whether a model of this name with these labels is meant; one with ``is_own`` names no model."""
        if self.is_own:
            return False
        if self.models and not any(_matches(name, pattern) for pattern in self.models):
            return False
        return self.match_labels.items() <= labels.items()


def _matches(name: str, pattern: str) -> bool:
    """Whether a name is of a pattern in which only ``*`` is special."""
    return fnmatchcase(name, pattern.replace("[", "[[]").replace("?", "[?]"))


@attrs.frozen(kw_only=True)
class AntiAffinity:
    """``required`` rules a place out; ``preferred`` has other places taken first. What runs is not moved for either."""

    required: tuple[AntiAffinityTerm, ...] = ()
    preferred: tuple[AntiAffinityTerm, ...] = ()


_MOST_TERMS, _MOST_NAMES, _LONGEST = 32, 100, 317


def faults_of_anti_affinity(one: AntiAffinity) -> list[str]:
    """What is wrong with it, in sentences."""
    terms = (*one.required, *one.preferred)
    faults = []
    if len(terms) > _MOST_TERMS:
        faults.append(f"there may be {_MOST_TERMS} terms at most, not {len(terms)}")
    if any(not 0 < len(term.topology_key) <= _LONGEST for term in terms):
        faults.append(f"topology_key must have 1 to {_LONGEST} characters")
    if any(len(term.models) + len(term.match_labels) > _MOST_NAMES for term in terms):
        faults.append(f"a term may have {_MOST_NAMES} models and labels at most")
    if any(not 0 < len(name) <= _LONGEST for term in terms for name in term.models):
        faults.append(f"a name of models must have 1 to {_LONGEST} characters")
    return faults
