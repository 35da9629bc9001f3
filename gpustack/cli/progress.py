"""Shows how a deployment comes up: schedule, download, load, ready."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import attrs

from gpustack.cli.phrase import clock as shown_clock
from gpustack.cli.phrase import one_line
from gpustack.cli.terminal import Terminal
from gpustack.errors import GpustackError

Doc = dict[str, Any]

_RANK = {
    "pending": 0,
    "analyzing": 1,
    "scheduled": 2,
    "initializing": 3,
    "downloading": 4,
    "starting": 5,
    "running": 6,
}
_DOING = {
    "pending": "waiting for a place",
    "analyzing": "reading the model's header",
    "scheduled": "scheduled",
    "initializing": "preparing",
    "downloading": "downloading",
    "starting": "loading",
}
_BAR = 30
_STEP = 10.0


class DeploymentFailure(GpustackError):
    """A model will not be ready; the sentence says why. ``instance`` is the one that failed, as it was."""

    def __init__(self, sentence: str, instance: Doc | None = None) -> None:
        self.instance = instance
        super().__init__(sentence)


@attrs.define(eq=False, kw_only=True)
class DeploymentProgress:
    """Follows the instances of one model and tells of the one that is furthest. ``now`` counts seconds."""

    model: str
    terminal: Terminal
    now: Callable[[], float]
    _began: float = attrs.field(default=attrs.Factory(lambda self: self.now(), takes_self=True))
    _told: set[str] = attrs.field(factory=set)
    _lead: Doc | None = None
    _first: tuple[float, float] | None = None
    _next_step: float = _STEP

    def feed(self, instances: Iterable[Doc]) -> Doc | None:
        """Look at all instances as they are; the one that runs, or None while none does.

        Raises Failed when what is furthest has failed.
        """
        present = [item for item in instances if not item.get("deleted_at")]
        self._lead = lead = max(present, key=lambda item: _RANK.get(item["state"], -1), default=None)
        if lead is None:
            return None
        if lead["state"] == "running":
            # How long it took is only worth a word if it had to come up.
            took = f" after {self.now() - self._began:.1f} s" if self._told else ""
            self.terminal.say(f"ready on {place(lead)}{took}")
            return lead
        self._tell(lead)
        if lead["state"] == "error":
            self.terminal.clear()
            reason = one_line(lead.get("state_message")).rstrip(".") or "no reason is known"
            placed = lead.get("worker_id") is not None
            raise DeploymentFailure(
                f"{lead['name']} failed: {reason}" if placed else f"{self.model} cannot run: {reason}", lead
            )
        self.draw()
        return None

    @property
    def waiting(self) -> Doc | None:
        """The instance that waits for a place although it has been thought about; ``None`` when there is none."""
        lead = self._lead
        return lead if lead is not None and lead["state"] == "pending" and lead.get("state_message") else None

    def draw(self) -> None:
        """Draw the line that changes; nothing where lines cannot be drawn over."""
        if self._lead is None:
            self.terminal.draw(f"{self.model}: waiting for an instance")
            return
        state = self._lead["state"]
        passed = shown_clock(self.now() - self._began)
        doing = _DOING.get(state, state)
        done = self._lead.get("download_progress")
        if state == "downloading" and done is not None:
            doing = f"{doing} {bar(done, utf8=_utf8(self.terminal))} {done:3.0f} %{self._left(done)}"
        self.terminal.draw(f"{doing}  {passed}"[: self.terminal.width - 1])

    def _tell(self, lead: Doc) -> None:
        """Lines that stay, each once."""
        state, message = lead["state"], one_line(lead.get("state_message"))
        if state in ("pending", "unreachable") and message:
            self._once(f"{self.terminal.style(state, 'yellow')}: {message}")
        if _RANK.get(state, -1) >= _RANK["scheduled"] and lead.get("worker_id") is not None:
            note = one_line(lead.get("placement_note"))
            self._once(f"scheduled on {place(lead)}{f' ({note})' if note else ''}")
        done = lead.get("download_progress")
        if state == "downloading" and not self.terminal.live:
            self._once("downloading")
            if done is not None and done >= self._next_step:
                self.terminal.say(f"downloading {done:.0f} %")
                self._next_step = (done // _STEP + 1) * _STEP
        if state == "starting":
            self._once("loading")

    def _once(self, line: str) -> None:
        if line not in self._told:
            self._told.add(line)
            self.terminal.say(line)

    def _left(self, done: float) -> str:
        """How long the rest takes at the speed seen so far."""
        if self._first is None:
            self._first = (self.now(), done)
        since, at = self.now() - self._first[0], done - self._first[1]
        if since < 1 or at <= 0:
            return ""
        return f", {shown_clock((100 - done) * since / at)} left"


def bar(percent: float, *, utf8: bool = True) -> str:
    """A bar that is ``percent`` full."""
    full = round(_BAR * min(max(percent, 0), 100) / 100)
    mark, rest = ("█", "░") if utf8 else ("#", ".")
    return mark * full + rest * (_BAR - full)


def place(instance: Doc) -> str:
    """Where an instance is: ``node-a, GPU 0``."""
    worker = instance.get("worker_name") or f"worker {instance.get('worker_id')}"
    indexes = instance.get("gpu_indexes") or []
    listed = ", ".join(str(index) for index in indexes)
    return f"{worker}, {'CPU' if not indexes else f'GPU {listed}' if len(indexes) == 1 else f'GPUs {listed}'}"


def _utf8(terminal: Terminal) -> bool:
    return (getattr(terminal.stream, "encoding", None) or "").lower().replace("-", "") == "utf8"
