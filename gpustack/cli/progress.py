"""Waits until a deployment serves and shows how it comes up: schedule, download, load, ready."""

from __future__ import annotations

from collections.abc import Callable, Iterable

import attrs
import trio

from gpustack.cli.explanation import refusal
from gpustack.cli.lookup import INSTANCES, MODELS
from gpustack.cli.phrase import clock as shown_clock
from gpustack.cli.phrase import one_line
from gpustack.cli.session import Doc
from gpustack.cli.terminal import Terminal
from gpustack.errors import GpustackError, NotFound, Unavailable
from gpustack.remote.admin_client import CREATED, DELETED, UPDATED, AdminClient
from gpustack.remote.http import RemoteError

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
"""Percent between two lines of a download, where lines cannot be drawn over."""
_REDRAW = 0.25
_AGAIN = 1.0
_ATTEMPTS = 10


class DeploymentFailure(GpustackError):
    """A model will not become ready; the sentence says why. ``instance`` is the document of the one that failed."""

    def __init__(self, sentence: str, instance: Doc | None = None) -> None:
        self.instance = instance
        super().__init__(sentence)


@attrs.define(eq=False, kw_only=True)
class DeploymentProgress:
    """Follows the instances of one model and shows the one that is furthest. ``now`` is a clock in seconds."""

    model: str
    terminal: Terminal
    now: Callable[[], float]
    _began: float = attrs.field(default=attrs.Factory(lambda self: self.now(), takes_self=True))
    _told: set[str] = attrs.field(factory=set)
    _lead: Doc | None = None
    _first: tuple[float, float] | None = None
    _next_step: float = _STEP

    def feed(self, instances: Iterable[Doc]) -> Doc | None:
        """Take in the present documents of all instances; returns the one that runs, or ``None`` while none does.

        Raises DeploymentFailure when the one that is furthest has failed.
        """
        present = [item for item in instances if not item.get("deleted_at")]
        self._lead = lead = max(present, key=lambda item: _RANK.get(item["state"], -1), default=None)
        if lead is None:
            return None
        if lead["state"] == "running":
            # The time is told only if the model was not ready from the beginning.
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
        """The instance that the scheduler found no place for; ``None`` when there is none."""
        lead = self._lead
        return lead if lead is not None and lead["state"] == "pending" and lead.get("state_message") else None

    def tell_waiting(self) -> None:
        """Print once why it waits for a place: to be called when it is known that waiting may help."""
        if self.waiting is not None:
            message = one_line(self.waiting.get("state_message"))
            self._once(f"{self.terminal.style('pending', 'yellow')}: {message}")

    def draw(self) -> None:
        """Draw the line of progress; nothing where lines cannot be drawn over."""
        if self._lead is None:
            self.terminal.draw(f"{self.model}: waiting for an instance")
            return
        state = self._lead["state"]
        passed = shown_clock(self.now() - self._began)
        doing = _DOING.get(state, state)
        done = self._lead.get("download_progress")
        if state == "downloading" and done is not None:
            doing = f"{doing} {bar(done, utf8=self.terminal.utf8)} {done:3.0f} %{self._left(done)}"
        self.terminal.draw(f"{doing}  {passed}"[: self.terminal.width - 1])

    def _tell(self, lead: Doc) -> None:
        """Print the lines that stay, each once."""
        state, message = lead["state"], one_line(lead.get("state_message"))
        if state == "unreachable" and message:
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
        """The time that the rest takes at the speed so far, as text; empty while unknown."""
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


async def until_ready(client: AdminClient, model: Doc, progress: DeploymentProgress) -> Doc:
    """The first instance of ``model`` that runs.

    Raises DeploymentFailure when it fails, NotFound when the model is removed meanwhile, Unavailable when the
    server stays away. Waits without end and changes nothing: it can be cancelled at any time.
    """
    found: list[Doc] = []
    async with trio.open_nursery() as nursery:
        nursery.start_soon(_redraw, progress)
        try:
            found.append(await _watch(client, model, progress))
        finally:
            progress.terminal.clear()
        nursery.cancel_scope.cancel()
    return found[0]


async def _redraw(progress: DeploymentProgress) -> None:
    while True:
        await trio.sleep(_REDRAW)
        progress.draw()


async def _watch(client: AdminClient, model: Doc, progress: DeploymentProgress) -> Doc:
    failures = 0
    while True:
        try:
            ready = await _look(client, model, progress)
            failures = 0
        except RemoteError as error:
            failures += 1
            if failures >= _ATTEMPTS:
                raise Unavailable(f"{error}; {model['name']} may come up nevertheless") from error
            ready = None
        if ready is not None:
            return ready
        await trio.sleep(_AGAIN)


async def _look(client: AdminClient, model: Doc, progress: DeploymentProgress) -> Doc | None:
    """Follow one watch until an instance runs (returned), or until the server ends the stream (``None``)."""
    present: dict[int, Doc] = {}
    async with client.watch(INSTANCES, model_id=model["id"]) as events:
        async for event in events:
            if event.kind in (CREATED, UPDATED):
                present[event.item["id"]] = event.item
            elif event.kind == DELETED:
                present.pop(event.item["id"], None)
                if not present:
                    await _still_wanted(client, model)
            ready = progress.feed(present.values())
            if ready is not None:
                return ready
            await _refuse_hopeless(client, progress)
            progress.tell_waiting()
    await _still_wanted(client, model)
    return None


async def _refuse_hopeless(client: AdminClient, progress: DeploymentProgress) -> None:
    """Raise DeploymentFailure when the scheduler says that the waiting instance can never be placed."""
    waiting = progress.waiting
    if waiting is None:
        return
    if why := await refusal(client, waiting):
        progress.terminal.clear()
        raise DeploymentFailure(f"{progress.model} cannot run here: {why.rstrip('.')}", waiting)


async def _still_wanted(client: AdminClient, model: Doc) -> None:
    try:
        now = await client.get(f"{MODELS}/{model['id']}")
    except NotFound:
        raise NotFound(f"Model {model['name']} was removed meanwhile") from None
    if not now.get("replicas"):
        raise NotFound(f"Model {model['name']} was stopped meanwhile")
