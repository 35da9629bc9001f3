"""Which workers live, by when each was last heard, and when the instances of a silent one are placed elsewhere."""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Collection, Mapping, Sequence

import attrs

from gpustack.domain.worker import WorkerState


@attrs.frozen(kw_only=True)
class LivenessSettings:
    """Seconds. A worker that was not heard for ``not_ready_after`` is not ready, and after ``replace_after`` its
    instances are placed elsewhere; one that was stopped in order keeps them for ``stopped_keeps``.

    When more than the share ``brake_share`` of the workers fall silent within ``brake_window`` of each other, the fault
    is more likely the server's network: replacing waits ``brake_hold`` longer.
    """

    look_every: float = 5.0
    not_ready_after: float = 45.0
    replace_after: float = 300.0
    stopped_keeps: float = 30.0
    brake_share: float = 0.5
    brake_window: float = 60.0
    brake_hold: float = 1800.0


@attrs.frozen(kw_only=True)
class LivenessVerdict:
    """The judgement of one worker. ``silent``: it was not heard for ``not_ready_after``. ``replace``: its instances may
    be placed elsewhere."""

    state: WorkerState
    why: str = ""
    silent: bool = False
    replace: bool = False


STOPPED = "its daemon was stopped"


def judge(last_heard: float, now: float, settings: LivenessSettings) -> tuple[WorkerState, str]:
    """The state of one worker, and the reason (empty when it is ready). Times are of one monotonic clock."""
    silent = now - last_heard
    if silent < settings.not_ready_after:
        return WorkerState.READY, ""
    why = f"not heard for {silent:.0f} s"
    return (WorkerState.UNREACHABLE if silent >= settings.replace_after else WorkerState.NOT_READY), why


def judge_all(
    last_heard: Mapping[int, float], now: float, settings: LivenessSettings, stopped: Collection[int] = ()
) -> dict[int, LivenessVerdict]:
    """A verdict for every worker of ``last_heard`` (worker id → time).

    Workers that are ``stopped`` have said that they stop: they are not ready even if they are heard while their engines
    end, and they do not count among those that fell silent together.
    """
    verdicts: dict[int, LivenessVerdict] = {}
    others = sorted(heard for worker_id, heard in last_heard.items() if worker_id not in stopped)
    for worker_id, heard in last_heard.items():
        state, why = judge(heard, now, settings)
        silent = state is not WorkerState.READY
        if worker_id in stopped:
            state = state if silent else WorkerState.NOT_READY
            # It may have been killed before it could report how its engines ended: then it is as silent as others.
            verdicts[worker_id] = LivenessVerdict(
                state=state, why=STOPPED, silent=silent, replace=now - heard >= settings.stopped_keeps
            )
            continue
        if state is not WorkerState.UNREACHABLE:
            verdicts[worker_id] = LivenessVerdict(state=state, why=why, silent=silent)
            continue
        together = _together(heard, others, now, settings)
        held = together > 0 and now - heard < settings.replace_after + settings.brake_hold
        if held:
            why += f"; {together} fell silent together, so its instances stay for now"
        verdicts[worker_id] = LivenessVerdict(state=state, why=why, silent=silent, replace=not held)
    return verdicts


def _together(heard: float, last_heard: Sequence[float], now: float, settings: LivenessSettings) -> int:
    """How many workers fell silent with this one, if their share is above the brake; else 0. The times are sorted."""
    first = bisect_left(last_heard, heard - settings.brake_window)
    last_silent = min(heard + settings.brake_window, now - settings.not_ready_after)
    silent, known = bisect_right(last_heard, last_silent) - first, len(last_heard) - first
    return silent if silent > settings.brake_share * known else 0


_SHORTEST = 0.25
"""Seconds between two looks, at least: many workers may fall silent one after the other."""


def next_look(
    last_heard: Mapping[int, float], now: float, settings: LivenessSettings, stopped: Collection[int] = ()
) -> float:
    """Seconds until the next look: ``look_every``, or sooner when the time of a silent worker is over before."""
    soonest = settings.look_every
    for worker_id, heard in last_heard.items():
        silent = now - heard
        ends = (
            (settings.stopped_keeps,)
            if worker_id in stopped
            else (settings.not_ready_after, settings.replace_after)
        )
        for end in ends:
            if 0.0 < end - silent < soonest:
                soonest = end - silent
    return max(soonest, min(_SHORTEST, settings.look_every))
