"""The changes of a worker that ``gpustack workers`` makes; each prints what it did."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import attrs
import trio

from gpustack.cli.failure import UsageError, WaitTimeout
from gpustack.cli.lookup import INSTANCES, WORKERS
from gpustack.cli.phrase import one_line, taints_in_line
from gpustack.cli.session import Doc
from gpustack.cli.terminal import Terminal
from gpustack.domain.taint import TaintEffect
from gpustack.errors import Conflict, NotFound, Unavailable
from gpustack.remote.admin_client import AdminClient

_LOOK_EVERY = 1.0
_LISTED = 3
_EFFECTS = tuple(effect.value for effect in TaintEffect)
_WAITING = ("pending", "analyzing", "error")
_SILENT = ("not_ready", "unreachable")
_NOTHING_PLACED = (
    "Nothing is placed on {} any more, but it is not heard: engines may still run on that machine"
)
_ATTEMPTS = 30
"""How many looks in a row the server may be away."""


def labels_of(words: Sequence[str], usage: str) -> Mapping[str, str | None]:
    """``KEY=VALUE`` and ``KEY-`` (to be taken away: ``None``) as given; raises UsageError."""
    found: dict[str, str | None] = {}
    for word in words:
        key, sign, value = word.partition("=")
        if not sign and word.endswith("-"):
            key, sign = word[:-1], "-"
        if not key or not sign:
            raise UsageError(f"A label is KEY=VALUE, or KEY- to take it away, not {word!r}", usage)
        found[key] = None if sign == "-" else value
    return found


async def label(client: AdminClient, worker: Doc, labels: Mapping[str, str | None]) -> None:
    """Set and remove labels; others stay. Raises NotFound, and changes nothing, where one to be removed is not there;
    Conflict for a label that the worker sets itself."""
    there = worker.get("labels") or {}
    absent = [key for key, value in labels.items() if value is None and key not in there]
    _refuse_absent(worker, "label", absent, ", ".join(sorted(there)))
    now = {**there, **labels}
    after = await _update(
        client, worker, labels={key: value for key, value in now.items() if value is not None}
    )
    kept = sorted(
        key for key, value in labels.items() if value is None and key in (after.get("labels") or {})
    )
    if kept:
        raise Conflict(f"{worker['name']} sets {', '.join(kept)} itself")
    shown = ", ".join(f"{key}={value}" for key, value in sorted((after.get("labels") or {}).items()))
    print(f"{worker['name']}: {shown}")


@attrs.frozen
class TaintEdit:
    """One word of ``gpustack workers taint``: to set a taint, or to take it away, of all effects if it names none."""

    key: str
    value: str = ""
    effect: str | None = None
    removes: bool = False

    @property
    def text(self) -> str:
        return f"{self.key}:{self.effect}" if self.effect else self.key

    def means(self, taint: Doc) -> bool:
        """Whether it is about this taint of a worker."""
        return taint["key"] == self.key and self.effect in (None, taint["effect"])

    def applied(self, taints: Sequence[Doc]) -> list[Doc]:
        """The taints of a worker after it."""
        others = [one for one in taints if not self.means(one)]
        if self.removes:
            return others
        return [*others, {"key": self.key, "value": self.value, "effect": self.effect}]


def taints_of(words: Sequence[str], usage: str) -> list[TaintEdit]:
    """``KEY[=VALUE]:EFFECT``, and ``KEY[=VALUE][:EFFECT]-`` (to be taken away) as given; raises UsageError."""
    found = []
    for word in words:
        removes = word.endswith("-")
        text, _, effect = word.removesuffix("-").partition(":")
        key, _, value = text.partition("=")
        if not key or (not effect and not removes) or (effect and effect not in _EFFECTS):
            raise UsageError(
                f"A taint is KEY=VALUE:EFFECT or KEY:EFFECT, with - behind it to take it away, and an effect is one of "
                f"{', '.join(_EFFECTS)}; not {word!r}",
                usage,
            )
        found.append(TaintEdit(key, value, effect or None, removes))
    return found


async def taint(client: AdminClient, worker: Doc, edits: Sequence[TaintEdit]) -> None:
    """Set and take away taints; others stay. Raises NotFound, and changes nothing, where one to be taken away is not
    there."""
    now = worker.get("taints") or []
    absent = [edit.text for edit in edits if edit.removes and not any(map(edit.means, now))]
    _refuse_absent(worker, "taint", absent, taints_in_line(worker))
    for edit in edits:
        now = edit.applied(now)
    after = await _update(client, worker, taints=now)
    print(f"{worker['name']}: {taints_in_line(after) or 'no taints'}")


def _refuse_absent(worker: Doc, what: str, absent: Sequence[str], there: str) -> None:
    if absent:
        raise NotFound(f"Worker {worker['name']} has no {what} {', '.join(absent)}; it has {there or 'none'}")


async def close(client: AdminClient, worker: Doc, *, closed: bool) -> None:
    """Cordon a worker, or end that."""
    await _update(client, worker, cordoned=closed)
    print(f"{worker['name']} is cordoned" if closed else f"{worker['name']} takes instances again")


async def bar(client: AdminClient, worker: Doc) -> None:
    """Void the credential of a worker, and refuse its machine from now on."""
    await client.create(f"{WORKERS}/{worker['id']}/bar", {})
    print(f"{worker['name']} is barred")


async def admit(client: AdminClient, worker: Doc, *, force: bool) -> None:
    """Let a machine join as this worker with the cluster token. Raises Conflict for a worker that is heard, whose
    place would be taken, unless forced."""
    name, there = worker["name"], _address(worker)
    if worker.get("state") == "ready" and not worker.get("barred") and not force:
        raise Conflict(
            f"Worker {name} is at {there} and is heard: admit would void its credential, and the first machine that "
            f"then joins as {name} with the cluster token would take its place. If another machine was refused because "
            "its data directory is a copy, delete worker_uuid, worker_name and worker_credential in that directory "
            "instead; --force admits all the same"
        )
    await client.create(f"{WORKERS}/{worker['id']}/admit", {})
    print(
        f"{name} may join: the first machine that does so as {name} with the cluster token takes its place; it was "
        f"at {there}"
    )


async def remove(client: AdminClient, worker: Doc, *, force: bool) -> None:
    """Remove a worker. Raises Conflict for one that is heard, which would join again, unless forced."""
    name = worker["name"]
    if worker.get("state") == "ready" and not force:
        raise Conflict(
            f"Worker {name} is at {_address(worker)} and is heard: removed, it would join again as a new worker. Stop "
            f"it first (gpustack workers drain {name} empties it), or keep it out with gpustack workers bar {name}; "
            "--force removes it all the same"
        )
    await client.delete(f"{WORKERS}/{worker['id']}")
    print(f"{name} is removed")


async def drain(client: AdminClient, worker: Doc) -> None:
    """Begin to move what the worker runs to others; does not wait for it."""
    await _update(client, worker, draining=True)
    print(f"{worker['name']} is being drained")


async def until_empty(client: AdminClient, worker: Doc, terminal: Terminal, patience: int | None) -> None:
    """Wait until nothing runs there, telling what is left and what its replacements wait for.

    A server that is away for a while is waited for. Raises WaitTimeout when it has not come to that within ``patience``
    seconds, Conflict when the drain was ended, Unavailable when the server stays away.
    """
    name, told = worker["name"], set[str]()
    left, reasons, failures = list[str](), list[str](), 0
    with trio.move_on_after(math.inf if patience is None else patience):
        while True:
            try:
                instances = await client.all(INSTANCES)
                now = await _as_it_is(client, worker)
            except Unavailable as error:
                failures += 1
                if failures >= _ATTEMPTS:
                    raise Unavailable(f"{error}; {name} goes on being drained") from error
                await trio.sleep(_LOOK_EVERY)
                continue
            failures = 0
            there, reasons = _left_of(worker, instances)
            if now.get("state") in _SILENT:
                reasons.insert(0, f"{name} is not heard: what runs there cannot be ended until it is")
            if not there:
                silent = now.get("state") in _SILENT
                print(
                    _NOTHING_PLACED.format(name)
                    if silent
                    else f"{name} is empty: nothing runs there any more"
                )
                return
            if there != left:
                terminal.say(f"{name} still runs {', '.join(there)}")
                left = there
            for reason in reasons:
                if reason not in told:
                    told.add(reason)
                    terminal.say(reason)
            if not now.get("draining"):
                raise Conflict(f"The drain of {name} was ended before it was empty")
            await trio.sleep(_LOOK_EVERY)
    why = f": {'; '.join(reasons)}" if reasons else ""
    raise WaitTimeout(
        f"{name} still runs {', '.join(left) or 'something'} after {patience} s, and goes on being drained{why}"
    )


async def _as_it_is(client: AdminClient, worker: Doc) -> Doc:
    """The worker by now; nothing where it was removed."""
    try:
        return await client.get(f"{WORKERS}/{worker['id']}")
    except NotFound:
        return {}


def _left_of(worker: Doc, instances: Sequence[Doc]) -> tuple[list[str], list[str]]:
    """The instances that are left on the worker, and why their replacements do not serve yet."""
    there = [one for one in instances if one.get("worker_id") == worker["id"]]
    models = {one.get("model_id") for one in there}
    waiting = [one for one in instances if one.get("model_id") in models and one.get("state") in _WAITING]
    alike: dict[tuple[str, str], list[str]] = {}
    for one in waiting:
        if one.get("worker_id") != worker["id"] and one.get("state_message"):
            alike.setdefault((one["state"], one_line(one["state_message"])), []).append(str(one["name"]))
    reasons = [f"{_some(names)} {state}: {message}" for (state, message), names in alike.items()]
    return sorted(str(one["name"]) for one in there), reasons


def _some(names: Sequence[str]) -> str:
    """``m-1 is``, or ``m-1, m-2, m-3 and 7 more are``."""
    if len(names) == 1:
        return f"{names[0]} is"
    more = len(names) - _LISTED
    return f"{', '.join(names[:_LISTED])}{f' and {more} more' if more > 0 else ''} are"


def _address(worker: Doc) -> str:
    ip = str(worker.get("ip") or "?")
    return f"[{ip}]:{worker.get('port')}" if ":" in ip else f"{ip}:{worker.get('port')}"


async def _update(client: AdminClient, worker: Doc, **fields: Any) -> Doc:
    return await client.update(f"{WORKERS}/{worker['id']}", fields)
