"""The life of a model instance: its states, and which party may move it from where to where."""

from __future__ import annotations

from enum import StrEnum

import attrs


class InstanceState(StrEnum):
    """In the words of the wire (behaviour.md s.3.6)."""

    PENDING = "pending"
    ANALYZING = "analyzing"
    SCHEDULED = "scheduled"
    INITIALIZING = "initializing"
    DOWNLOADING = "downloading"
    STARTING = "starting"
    RUNNING = "running"
    ERROR = "error"
    UNREACHABLE = "unreachable"


class Party(StrEnum):
    """Who writes a transition."""

    SCHEDULER = "scheduler"
    WORKER = "worker"
    LIVENESS = "liveness"


@attrs.frozen
class Transition:
    """One allowed move, with who makes it and when."""

    source: InstanceState
    target: InstanceState
    by: Party
    when: str


_S = InstanceState
_LIVE = (_S.SCHEDULED, _S.INITIALIZING, _S.DOWNLOADING, _S.STARTING, _S.RUNNING, _S.ERROR, _S.UNREACHABLE)

TRANSITIONS: tuple[Transition, ...] = (
    Transition(_S.PENDING, _S.ANALYZING, Party.SCHEDULER, "the model's header is being read"),
    Transition(_S.ANALYZING, _S.PENDING, Party.SCHEDULER, "nothing fits; the message says what is short"),
    Transition(_S.ANALYZING, _S.ERROR, Party.SCHEDULER, "the model can never run as specified"),
    Transition(_S.ANALYZING, _S.SCHEDULED, Party.SCHEDULER, "a place fits and is claimed"),
    Transition(_S.PENDING, _S.SCHEDULED, Party.SCHEDULER, "a place fits; the header was known"),
    Transition(_S.PENDING, _S.ERROR, Party.SCHEDULER, "the model can never run as specified"),
    Transition(_S.ERROR, _S.PENDING, Party.SCHEDULER, "the reason is gone: looked at again"),
    Transition(_S.SCHEDULED, _S.INITIALIZING, Party.WORKER, "the worker has taken the instance"),
    Transition(_S.INITIALIZING, _S.DOWNLOADING, Party.WORKER, "files are missing"),
    Transition(_S.INITIALIZING, _S.STARTING, Party.WORKER, "files are there, the engine is started"),
    Transition(_S.DOWNLOADING, _S.STARTING, Party.WORKER, "files arrived, the engine is started"),
    Transition(_S.STARTING, _S.RUNNING, Party.WORKER, "the engine answers its readiness probe"),
    Transition(_S.SCHEDULED, _S.RUNNING, Party.WORKER, "a running engine was adopted"),
    Transition(_S.INITIALIZING, _S.RUNNING, Party.WORKER, "a running engine was adopted"),
    *(
        Transition(s, _S.ERROR, Party.WORKER, "a step failed or the engine ended")
        for s in _LIVE
        if s is not _S.ERROR
    ),
    Transition(_S.ERROR, _S.SCHEDULED, Party.WORKER, "restarted after its back-off"),
    Transition(_S.ERROR, _S.INITIALIZING, Party.WORKER, "restarted after its back-off"),
    Transition(_S.RUNNING, _S.INITIALIZING, Party.WORKER, "the daemon came back and looks for its engine"),
    Transition(_S.STARTING, _S.INITIALIZING, Party.WORKER, "the daemon came back and looks for its engine"),
    Transition(_S.DOWNLOADING, _S.INITIALIZING, Party.WORKER, "the daemon came back and looks for its files"),
    Transition(_S.UNREACHABLE, _S.INITIALIZING, Party.WORKER, "the worker is back"),
    Transition(_S.UNREACHABLE, _S.RUNNING, Party.WORKER, "the worker is back and its engine answers"),
    Transition(_S.RUNNING, _S.UNREACHABLE, Party.LIVENESS, "the worker is silent past its time"),
    Transition(_S.UNREACHABLE, _S.RUNNING, Party.LIVENESS, "the worker is heard again"),
    *(Transition(s, _S.PENDING, Party.LIVENESS, "the worker stayed away past its grace") for s in _LIVE),
)

_ALLOWED = frozenset((t.source, t.target, t.by) for t in TRANSITIONS)


def allowed(source: InstanceState, target: InstanceState, by: Party) -> bool:
    """Whether ``by`` may move an instance so. Staying in a state (a new message) is always allowed."""
    return source is target or (source, target, by) in _ALLOWED


SERVING = frozenset({InstanceState.RUNNING})
"""States in which the gateway sends requests."""

PLACED = frozenset(_LIVE)
"""States in which an instance holds a claim on its devices."""
