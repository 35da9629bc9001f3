"""What ``gpustack wait`` waits for: of each kind of object when a condition holds, and else what is in the way."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from datetime import UTC, datetime

import attrs

from gpustack.cli import phrase
from gpustack.cli.explanation import refusal
from gpustack.cli.lookup import (
    INSTANCES,
    KINDS,
    NamedObject,
    instances_of,
    members_of,
    object_named,
    objects_named,
)
from gpustack.cli.session import Doc
from gpustack.errors import BadRequest, Conflict, NotFound
from gpustack.remote.admin_client import AdminClient
from gpustack.text import listed

_SHOWN = 3


@attrs.frozen
class Outlook:
    """Whether a condition holds, and else why not yet."""

    holds: bool
    why: str = ""


_HOLDS = Outlook(True)

Look = Callable[[AdminClient, Doc], Awaitable[Outlook]]
"""Looks at an object as it is now. Raises a GpustackError where the condition can never come to hold."""


@attrs.frozen
class Subject:
    """One name, and what is asked about it."""

    name: str
    wanted: str
    named: NamedObject | None

    async def look(self, client: AdminClient) -> Outlook:
        """As it is now. Raises a GpustackError where it cannot come to that any more."""
        if self.wanted == "created":
            return Outlook(bool(await objects_named(client, self.name)), "there is nothing of that name")
        if self.wanted == "gone":
            return await _gone(client, self.name, self.named)
        assert self.named is not None
        try:
            now = await client.get(f"{KINDS[self.named.kind]}/{self.named.document['id']}")
        except NotFound:
            raise NotFound(f"{self.name} was removed meanwhile") from None
        return await _LOOKS[self.named.kind, self.wanted](client, now)


async def subject_named(client: AdminClient, name: str, wanted: str) -> Subject:
    """What is waited for. Raises NotFound, Conflict or BadRequest for what nobody can wait for."""
    if wanted == "created":
        return Subject(name, wanted, None)
    if wanted == "gone":
        found = await objects_named(client, name)
        return Subject(name, wanted, found[0] if found else None)
    named = await object_named(client, name)
    if (named.kind, wanted) not in _LOOKS:
        known = ", ".join(one for kind, one in _LOOKS if kind == named.kind)
        article = "An" if named.kind == "instance" else "A"
        raise BadRequest(
            f"{article} {named.kind} is never {wanted}: of {name} one can wait for {known}, gone or created"
        )
    return Subject(name, wanted, named)


async def _gone(client: AdminClient, name: str, named: NamedObject | None) -> Outlook:
    """Of a model also its instances, which end after it."""
    if await objects_named(client, name):
        return Outlook(False, "it is still there")
    if named is None or named.kind != "model":
        return _HOLDS
    left = [one for one in await client.all(INSTANCES) if one.get("model_name") == named.name]
    return Outlook(not left, f"{_some(left)} still there")


async def _model_ready(client: AdminClient, model: Doc) -> Outlook:
    wanted, ready = _wanted(model), model.get("ready_replicas") or 0
    if ready >= wanted:
        return _HOLDS
    waiting = [one for one in await instances_of(client, model) if one.get("state") != "running"]
    for one in waiting:
        await _refuse_hopeless(client, one)
    return Outlook(False, f"{ready} of {wanted} replicas serve{_reasons(waiting)}")


async def _model_scheduled(client: AdminClient, model: Doc) -> Outlook:
    wanted, found = _wanted(model), await instances_of(client, model)
    placed = [one for one in found if one.get("worker_id") is not None]
    if len(placed) >= wanted:
        return _HOLDS
    waiting = [one for one in found if one.get("worker_id") is None]
    for one in waiting:
        await _refuse_hopeless(client, one)
    return Outlook(False, f"{len(placed)} of {wanted} replicas have a place{_reasons(waiting)}")


async def _model_stopped(client: AdminClient, model: Doc) -> Outlook:
    if model.get("replicas"):
        name = model["name"]
        raise Conflict(f"{name} is not being stopped, and wants {model['replicas']}: gpustack stop {name}")
    left = await client.all(INSTANCES, model_id=model["id"])
    return Outlook(not left, f"{_some(left)} still there")


async def _instance_ready(client: AdminClient, instance: Doc) -> Outlook:
    if instance.get("state") == "running" and not instance.get("deleted_at"):
        return _HOLDS
    await _refuse_hopeless(client, instance)
    return Outlook(False, _state(instance))


async def _instance_scheduled(client: AdminClient, instance: Doc) -> Outlook:
    if instance.get("worker_id") is not None:
        return _HOLDS
    await _refuse_hopeless(client, instance)
    return Outlook(False, _state(instance))


async def _worker_ready(client: AdminClient, worker: Doc) -> Outlook:
    if worker.get("barred"):
        raise Conflict(f"{worker['name']} is barred: gpustack workers admit {worker['name']}")
    why = phrase.one_line(worker.get("state_message"))
    told = f"it is {worker.get('state')}{f': {why}' if why else ''}"
    return Outlook(worker.get("state") == "ready", told)


async def _worker_drained(client: AdminClient, worker: Doc) -> Outlook:
    name = worker["name"]
    if not worker.get("draining"):
        raise Conflict(f"{name} is not being drained: gpustack workers drain {name}")
    left = [one for one in await client.all(INSTANCES) if _is_on(one, worker)]
    return Outlook(not left, f"{_some(left)} still there")


async def _file_ready(client: AdminClient, file: Doc) -> Outlook:
    state = file.get("state")
    if state == "error":
        raise Conflict(f"file/{file['id']} failed: {phrase.one_line(file.get('state_message'))}")
    return Outlook(state == "ready", f"it is {phrase.with_progress(str(state), file)}")


_LOOKS: Mapping[tuple[str, str], Look] = {
    ("model", "ready"): _model_ready,
    ("model", "scheduled"): _model_scheduled,
    ("model", "stopped"): _model_stopped,
    ("instance", "ready"): _instance_ready,
    ("instance", "scheduled"): _instance_scheduled,
    ("worker", "ready"): _worker_ready,
    ("worker", "drained"): _worker_drained,
    ("file", "ready"): _file_ready,
}
CONDITIONS = (*dict.fromkeys(wanted for _, wanted in _LOOKS), "gone", "created")


def _wanted(model: Doc) -> int:
    """How many replicas there are to be. Raises Conflict where none is: then it never becomes ready."""
    wanted = int(model.get("replicas") or 0)
    if not wanted:
        raise Conflict(f"{model['name']} is stopped; gpustack run {model['name']} starts it")
    return wanted


def _is_on(instance: Doc, worker: Doc) -> bool:
    """Whether it, or a member of it, is there."""
    return any(member.get("worker_id") == worker["id"] for member in members_of(instance))


async def _refuse_hopeless(client: AdminClient, instance: Doc) -> None:
    """Raise Conflict for one that has failed and is not started again, and for one that can never be placed."""
    name, state = instance["name"], instance.get("state")
    if instance.get("deleted_at"):
        raise Conflict(f"{name} is being removed")
    if state == "error" and not instance.get("next_retry_at"):
        raise Conflict(
            f"{name} failed: {phrase.one_line(instance.get('state_message')) or 'no reason is known'}"
        )
    if state != "pending" or not instance.get("state_message"):
        return
    if why := await refusal(client, instance):
        raise Conflict(f"{name} cannot run here: {why}")


def _reasons(instances: Sequence[Doc]) -> str:
    told = "; ".join(f"{one['name']}: {_state(one)}" for one in instances[:_SHOWN])
    more = f"; and {len(instances) - _SHOWN} more" if len(instances) > _SHOWN else ""
    return f"; {told}{more}" if told else ""


def _state(instance: Doc) -> str:
    state = "ending" if instance.get("deleted_at") else str(instance.get("state"))
    why = phrase.reason(instance, datetime.now(UTC))
    return f"it is {phrase.with_progress(state, instance)}{f' ({why})' if why else ''}"


def _some(instances: Sequence[Doc]) -> str:
    names = [str(one.get("name")) for one in instances]
    return f"{listed(names, _SHOWN)} {'is' if len(names) == 1 else 'are'}"
