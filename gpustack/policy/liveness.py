"""Who is alive, by when each worker was last heard, and when what ran on a silent one is placed anew."""

from __future__ import annotations

from collections.abc import Collection, Mapping

import attrs

from gpustack.domain.worker import WorkerState


@attrs.frozen(kw_only=True)
class LivenessSettings:
    """Seconds. A worker is silent after ``not_ready_after`` and given up after ``replace_after``; one that was stopped
    in order keeps its places for ``stopped_keeps`` after its last word.

    When more than ``brake_share`` of the workers heard till then fall silent within ``brake_window`` of each
    other, it is more likely us than them: giving up waits ``brake_hold`` longer.
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
    """What the evidence allows to say now. ``silent``: it is not heard though it did not say that it stops.
    ``replace``: its instances may be placed elsewhere, one by one."""

    state: WorkerState
    why: str = ""
    silent: bool = False
    replace: bool = False


STOPPED = "its daemon was stopped"


def judge(last_heard: float | None, now: float, settings: LivenessSettings) -> tuple[WorkerState, str]:
    """The state of one worker and the reason, empty when all is well. Times are of one monotonic clock."""
    if last_heard is None:
        return WorkerState.NOT_READY, "it has not been heard yet"
    silent = now - last_heard
    if silent < settings.not_ready_after:
        return WorkerState.READY, ""
    why = f"not heard for {silent:.0f} s"
    return (WorkerState.UNREACHABLE if silent >= settings.replace_after else WorkerState.NOT_READY), why


def judge_all(
    leases: Mapping[int, float], now: float, settings: LivenessSettings, stopped: Collection[int] = ()
) -> dict[int, LivenessVerdict]:
    """A verdict for every worker of ``leases`` (worker id → when last heard).

    Those ``stopped`` have said so: they get nothing more, though they may be heard while their engines end, and they
    tell nothing of whether others fell silent together.
    """
    verdicts: dict[int, LivenessVerdict] = {}
    others = {worker_id: heard for worker_id, heard in leases.items() if worker_id not in stopped}
    for worker_id, heard in leases.items():
        state, why = judge(heard, now, settings)
        silent = state is not WorkerState.READY
        if worker_id in stopped:
            state = state if silent else WorkerState.NOT_READY
            # One that was killed before it could say how its engines ended is as silent as any other.
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


def _together(heard: float, leases: Mapping[int, float], now: float, settings: LivenessSettings) -> int:
    """How many fell silent with this one, if that is too many at once for a fault of theirs; else 0."""
    before = heard - settings.brake_window
    known = [at for at in leases.values() if at >= before]
    silent = [
        at for at in known if at <= heard + settings.brake_window and now - at >= settings.not_ready_after
    ]
    return len(silent) if len(silent) > settings.brake_share * len(known) else 0
