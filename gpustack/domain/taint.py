"""Taints of workers and tolerations of deployments, with the words and rules of Kubernetes."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from datetime import datetime
from enum import StrEnum

import attrs

_NAME = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9._-]*[A-Za-z0-9])?")
_LONGEST_NAME, _LONGEST_PREFIX = 63, 253


class TaintEffect(StrEnum):
    """What a taint does to deployments that do not tolerate it."""

    NO_SCHEDULE = "NoSchedule"
    """Nothing new is placed there."""
    PREFER_NO_SCHEDULE = "PreferNoSchedule"
    """Other places are taken first."""
    NO_EXECUTE = "NoExecute"
    """Nothing new is placed there, and what runs there is ended."""


class TolerationOperator(StrEnum):
    """How a toleration is compared with a taint."""

    EQUAL = "Equal"
    EXISTS = "Exists"


@attrs.frozen(kw_only=True)
class Taint:
    """A mark of a worker that keeps deployments away."""

    key: str
    value: str = ""
    effect: TaintEffect
    time_added: datetime | None = None
    """When the server was told of it."""

    def __str__(self) -> str:
        return f"{self.key}={self.value}:{self.effect}" if self.value else f"{self.key}:{self.effect}"


@attrs.frozen(kw_only=True)
class Toleration:
    """What a deployment tolerates: taints of a key and value (``Equal``), or of a key whatever its value (``Exists``).

    Without a key it is every taint, without an effect every effect.
    """

    key: str = ""
    operator: TolerationOperator = TolerationOperator.EQUAL
    value: str = ""
    effect: TaintEffect | None = None
    toleration_seconds: int | None = None
    """Of ``NoExecute``: for how long an instance stays once the worker is tainted; ``None`` is for ever."""

    def tolerates(self, taint: Taint) -> bool:
        """Whether the taint is one of those tolerated, if only for a time."""
        if self.effect is not None and self.effect is not taint.effect:
            return False
        if self.key and self.key != taint.key:
            return False
        return self.operator is TolerationOperator.EXISTS or self.value == taint.value


def _is_name(text: str, longest: int) -> bool:
    return len(text) <= longest and _NAME.fullmatch(text) is not None


def _faults_of_words(key: str, value: str) -> list[str]:
    """What is wrong with a key and a value, of which either may be empty. They are those of labels in Kubernetes, so
    that ``key=value:effect`` can be read back."""
    faults = []
    prefix, slash, name = key.rpartition("/")
    if key and not (_is_name(name, _LONGEST_NAME) and (not slash or _is_name(prefix, _LONGEST_PREFIX))):
        faults.append(
            f"key {key[:80]!r} must be letters, digits, '.', '_' and '-', {_LONGEST_NAME} at most, after a prefix and "
            "'/' if wanted"
        )
    if value and not _is_name(value, _LONGEST_NAME):
        faults.append(
            f"value {value[:80]!r} must be letters, digits, '.', '_' and '-', {_LONGEST_NAME} at most"
        )
    return faults


def faults_of_taints(taints: Sequence[Taint]) -> list[str]:
    """What is wrong with the taints of a worker, in sentences."""
    faults = []
    for taint in taints:
        faults += _faults_of_words(taint.key, taint.value)
        if not taint.key:
            faults.append("key must not be empty")
    names = [(taint.key, taint.effect) for taint in taints]
    faults += [
        f"{key}:{effect} is there twice"
        for key, effect in dict.fromkeys(names)
        if names.count((key, effect)) > 1
    ]
    return faults


def with_times(taints: Iterable[Taint], before: Iterable[Taint], now: datetime) -> tuple[Taint, ...]:
    """The taints, each with the time at which it was added: for those that were there ``before`` it stays."""
    known = {(one.key, one.value, one.effect): one.time_added for one in before}
    return tuple(
        attrs.evolve(one, time_added=known.get((one.key, one.value, one.effect)) or now) for one in taints
    )


def faults_of_toleration(one: Toleration) -> list[str]:
    """What is wrong with a toleration, in sentences."""
    faults = _faults_of_words(one.key, one.value)
    if not one.key and one.operator is not TolerationOperator.EXISTS:
        faults.append("without a key, operator must be Exists, which tolerates every taint")
    if one.operator is TolerationOperator.EXISTS and one.value:
        faults.append("operator Exists takes no value: leave value out, or use Equal")
    if one.toleration_seconds is not None and one.effect is not TaintEffect.NO_EXECUTE:
        faults.append("toleration_seconds is for effect NoExecute only")
    return faults


def untolerated(
    taints: Iterable[Taint], tolerations: Sequence[Toleration], *effects: TaintEffect
) -> list[Taint]:
    """The taints of these effects that no toleration covers. One that is tolerated for a time is covered."""
    return [
        taint
        for taint in taints
        if taint.effect in effects and not any(one.tolerates(taint) for one in tolerations)
    ]


def seconds_tolerated(taint: Taint, tolerations: Iterable[Toleration]) -> float | None:
    """For how long a ``NoExecute`` taint is tolerated: the shortest time of all tolerations of it, 0 where there is
    none; ``None`` is for ever."""
    matching = [one.toleration_seconds for one in tolerations if one.tolerates(taint)]
    if not matching:
        return 0.0
    times = [max(seconds, 0) for seconds in matching if seconds is not None]
    return float(min(times)) if times else None
