"""Who is alive, by when each worker was last heard, and when what ran on a silent one is placed anew."""

from __future__ import annotations

from collections.abc import Mapping

import attrs

from gpustack.domain.worker import WorkerState


@attrs.frozen(kw_only=True)
class LivenessSettings:
    """Seconds. A worker is silent after ``not_ready_after`` and given up after ``replace_after``.

    When more than ``brake_share`` of the workers heard till then fall silent within ``brake_window`` of each
    other, it is more likely us than them: giving up waits ``brake_hold`` longer.
    """

    look_every: float = 5.0
    not_ready_after: float = 45.0
    replace_after: float = 300.0
    brake_share: float = 0.5
    brake_window: float = 60.0
    brake_hold: float = 1800.0


@attrs.frozen(kw_only=True)
class Verdict:
    """What the evidence allows to say now. ``replace``: its instances may be placed elsewhere, one by one."""

    state: WorkerState
    why: str = ""
    replace: bool = False


def judge(last_heard: float | None, now: float, settings: LivenessSettings) -> tuple[WorkerState, str]:
    """The state of one worker and the reason, empty when all is well. Times are of one monotonic clock."""
    if last_heard is None:
        return WorkerState.NOT_READY, "it has not been heard yet"
    silent = now - last_heard
    if silent < settings.not_ready_after:
        return WorkerState.READY, ""
    why = f"not heard for {silent:.0f} s"
    return (WorkerState.UNREACHABLE if silent >= settings.replace_after else WorkerState.NOT_READY), why


def expire(leases: Mapping[int, float], now: float, settings: LivenessSettings) -> dict[int, Verdict]:
    """A verdict for every worker of ``leases`` (worker id → when last heard)."""
    verdicts: dict[int, Verdict] = {}
    for worker_id, heard in leases.items():
        state, why = judge(heard, now, settings)
        if state is not WorkerState.UNREACHABLE:
            verdicts[worker_id] = Verdict(state=state, why=why)
            continue
        together = _together(heard, leases, now, settings)
        held = together > 0 and now - heard < settings.replace_after + settings.brake_hold
        if held:
            why += f"; {together} fell silent together, so its instances stay for now"
        verdicts[worker_id] = Verdict(state=state, why=why, replace=not held)
    return verdicts


def _together(heard: float, leases: Mapping[int, float], now: float, settings: LivenessSettings) -> int:
    """How many fell silent with this one, if that is too many at once for a fault of theirs; else 0."""
    before = heard - settings.brake_window
    known = [at for at in leases.values() if at >= before]
    silent = [
        at for at in known if at <= heard + settings.brake_window and now - at >= settings.not_ready_after
    ]
    return len(silent) if len(silent) > settings.brake_share * len(known) else 0
