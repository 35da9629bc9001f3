"""The life of a model instance: its states, and the moves between them, each made by one party.

This table is the only place that says so. A move that is not in it cannot be written: the store refuses it with
``Conflict``. ``server/lifecycle.py`` makes the moves that have a name here; a worker reports states, and those moves of
its own are taken that the table has.
"""

from __future__ import annotations

from enum import StrEnum

import attrs


class InstanceState(StrEnum):
    """In the words of the wire, which are those of GPUStack 0.7."""

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
    """Who makes a move. ``USER`` is an administrator who removes or bars a worker."""

    SCHEDULER = "scheduler"
    WORKER = "worker"
    LIVENESS = "liveness"
    USER = "user"


@attrs.frozen
class Move:
    """What one party does: an instance in any of ``sources`` comes to ``target``. ``when`` is shown in the docs."""

    by: Party
    sources: tuple[InstanceState, ...]
    target: InstanceState
    when: str


@attrs.frozen
class Transition:
    """One allowed step: a row of the table of moves."""

    source: InstanceState
    target: InstanceState
    by: Party
    when: str


_S = InstanceState
_LIVE = (_S.SCHEDULED, _S.INITIALIZING, _S.DOWNLOADING, _S.STARTING, _S.RUNNING, _S.ERROR, _S.UNREACHABLE)

ANALYZE = Move(Party.SCHEDULER, (_S.PENDING,), _S.ANALYZING, "the model's header is being read")
DEFER = Move(
    Party.SCHEDULER,
    (_S.ANALYZING, _S.ERROR),
    _S.PENDING,
    "nothing fits now, or what was wrong with the model's files may be mended; the message says which",
)
REJECT = Move(Party.SCHEDULER, (_S.PENDING, _S.ANALYZING), _S.ERROR, "the model can never run as specified")
PLACE = Move(Party.SCHEDULER, (_S.PENDING, _S.ANALYZING), _S.SCHEDULED, "a place fits and is claimed")

CUT_OFF = Move(Party.LIVENESS, (_S.RUNNING,), _S.UNREACHABLE, "the worker is silent past its time")
RECONNECT = Move(Party.LIVENESS, (_S.UNREACHABLE,), _S.RUNNING, "the worker is heard again")
REPLACE = Move(
    Party.LIVENESS, _LIVE, _S.PENDING, "the worker stayed away, or was stopped, past its grace: placed anew"
)
EVICT = Move(Party.USER, _LIVE, _S.PENDING, "the worker was removed or barred: placed anew")

_WORKER = (
    Move(Party.WORKER, (_S.SCHEDULED,), _S.INITIALIZING, "the worker has taken the instance"),
    Move(Party.WORKER, (_S.INITIALIZING,), _S.DOWNLOADING, "files are missing"),
    Move(
        Party.WORKER, (_S.INITIALIZING, _S.DOWNLOADING), _S.STARTING, "files are there, the engine is started"
    ),
    Move(Party.WORKER, (_S.STARTING,), _S.RUNNING, "the engine answers its readiness probe"),
    Move(
        Party.WORKER,
        (_S.SCHEDULED, _S.INITIALIZING, _S.UNREACHABLE),
        _S.RUNNING,
        "an engine that went on running was adopted, and answers",
    ),
    Move(
        Party.WORKER,
        tuple(state for state in _LIVE if state is not _S.ERROR),
        _S.ERROR,
        "a step failed or the engine ended",
    ),
    Move(Party.WORKER, (_S.ERROR,), _S.INITIALIZING, "restarted after its back-off"),
    Move(
        Party.WORKER,
        (_S.DOWNLOADING, _S.STARTING, _S.RUNNING, _S.UNREACHABLE),
        _S.INITIALIZING,
        "the daemon stops, or came back: the engine is started again",
    ),
)

MOVES = (ANALYZE, DEFER, REJECT, PLACE, *_WORKER, CUT_OFF, RECONNECT, REPLACE, EVICT)
"""In the order in which an instance meets them."""

TRANSITIONS: tuple[Transition, ...] = tuple(
    Transition(source, move.target, move.by, move.when) for move in MOVES for source in move.sources
)

_ALLOWED = frozenset((t.source, t.target, t.by) for t in TRANSITIONS)


def allowed(source: InstanceState, target: InstanceState, by: Party) -> bool:
    """Whether ``by`` may move an instance so. Staying in a state (a new message) is always allowed."""
    return source is target or (source, target, by) in _ALLOWED


SERVING = frozenset({InstanceState.RUNNING})
"""States in which the gateway sends requests."""
