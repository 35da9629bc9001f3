"""Records a call for the audit trail: who, from where, what was done to what, and how it ended."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import datetime
from typing import Any

import attrs
import orjson

from gpustack.domain.access import ApiKey, Principal, Role, User
from gpustack.domain.audit import AuditEvent, AuditOutcome
from gpustack.domain.record import UNSAVED, Record, table_of
from gpustack.domain.worker import Worker
from gpustack.errors import Unavailable
from gpustack.identity.credentials import Credentials
from gpustack.identity.keys import ApiKeyText, WorkerKeyText, parse
from gpustack.server.audit_trail import AuditTrail, insert
from gpustack.store.attached_write import AttachedWrite, attach
from gpustack.store.transaction import Tx

from .context import ApiContext
from .mask import legible, masked
from .request import ApiRequest
from .shape import Document, JsonShape
from .view import Doc, plain

LARGEST = 8 << 10
"""Bytes of an event's details. Of larger ones only the names of the fields are kept."""
NO_ACCOUNT = "(no such account)"
"""In place of a name that no account has: it may be a password typed into the wrong field."""
CLIENT_LEFT = 499
"""The status of an attempt whose client left before it was known who it was (nginx's number)."""
REFUSALS = frozenset({401, 403, 429})


@attrs.frozen(kw_only=True)
class Actor:
    """Who does it, as far as that is known."""

    id: int | None = None
    name: str = ""
    role: str = ""
    means: str = ""
    api_key_id: int | None = None
    proven: bool = False
    """False: it is only what the request claims."""

    @classmethod
    def of(cls, principal: Principal) -> Actor:
        who = principal.worker_id if principal.user_id is None else principal.user_id
        return cls(
            id=who,
            name=principal.username,
            role=principal.role.value,
            means=principal.means.value,
            api_key_id=principal.api_key_id,
            proven=True,
        )


AuditPart = tuple[str, Record, Mapping[str, Any]]
"""What a change of several records does to one of them: action, record and details."""


@attrs.frozen(kw_only=True)
class AuditTarget:
    """What it is done to."""

    type: str = ""
    id: int | None = None
    name: str = ""

    @classmethod
    def of(cls, record: Record) -> AuditTarget:
        number = None if record.id == UNSAVED else record.id
        return cls(type=noun_of(type(record)), id=number, name=legible(name_of(record)))


@attrs.define(eq=False)
class AuditRecorder:
    """Collects the event of one call, and stores it when the call is over. Handlers add what only they know."""

    _trail: AuditTrail
    _now: datetime
    action: str
    address: str
    actor: Actor = Actor()
    target: AuditTarget = AuditTarget()
    details: dict[str, Any] = attrs.field(factory=dict)
    _counted: bool = False
    """The caller has made so many changes just now that further ones are counted, not stored one by one."""
    _attached: AttachedWrite | None = None
    _parts: Sequence[tuple[str, AuditTarget, Mapping[str, Any]]] = ()
    """Action, target and details of each further event."""

    def acts(self, principal: Principal) -> None:
        """The caller is this principal."""
        self.actor = Actor.of(principal)

    def signs_in(self, user: User, means: str) -> None:
        """The caller proved in the call itself to be this account."""
        role = "admin" if user.is_admin else "user"
        self.actor = Actor(id=user.id, name=user.username, role=role, means=means, proven=True)

    def tries(self, user: User | None, means: str) -> None:
        """The caller claims to be this account, unproved; ``None`` where there is no such account."""
        if user is None:
            self.actor = Actor(name=NO_ACCOUNT, means=means)
        else:
            self.actor = Actor(id=user.id, name=user.username, means=means)

    def concerns(self, record: Record) -> None:
        """It is done to this record."""
        self.target = AuditTarget.of(record)

    def sets(self, document: Mapping[str, Any], shape: JsonShape, before: Doc | None = None) -> None:
        """Which fields are written: all of a new record, or those that differ from ``before``."""
        fields = shape.fields if isinstance(shape, Document) else {}
        now = {name: plain(value) for name, value in document.items() if name in fields}
        if before is None:
            self._detail("fields", {name: masked(now[name], fields[name], name) for name in now})
            return
        changes = {
            name: {
                **({"from": masked(plain(before[name]), fields[name], name)} if name in before else {}),
                "to": masked(value, fields[name], name),
            }
            for name, value in now.items()
            if name not in before or plain(before[name]) != value
        }
        self._detail("changes", changes)

    def also(self, parts: Sequence[AuditPart]) -> None:
        """What a change of several records does to each, stored as events of their own."""
        self._parts = [
            (action, AuditTarget.of(record), _bounded(details)) for action, record, details in parts
        ]

    def _detail(self, what: str, details: Mapping[str, Any]) -> None:
        short = _is_short(details)
        self.details[what] = details if short else sorted(details)

    @contextmanager
    def with_the_change(self, *, recorded: bool = True) -> Iterator[None]:
        """Within the block, the transaction that writes records stores the event too: both are stored, or neither."""
        if not recorded:
            yield
            return
        if self.actor.id is not None and self.actor.role != Role.ADMIN.value:
            self._counted = not self._trail.has_room_for(self.actor.id)
        self._attached = AttachedWrite(self._write)
        with attach(self._attached):
            yield

    def _write(self, tx: Tx, result: object) -> None:
        """Part of the transaction: runs in the writer's thread while the call waits."""
        if self._counted:
            return
        target = (
            AuditTarget.of(result) if self.target.id is None and isinstance(result, Record) else self.target
        )
        whole = self._event(AuditOutcome.DONE, 200, at=tx.now, target=target)
        parts = (
            attrs.evolve(
                whole,
                action=action,
                target_type=aim.type,
                target_id=aim.id,
                target_name=aim.name,
                details=details,
            )
            for action, aim, details in self._parts
        )
        insert(tx, [whole, *parts])

    async def done(self, context: ApiContext, status: int) -> None:
        """It was done. Where no record was written, the event is stored now; if that fails, as soon as possible."""
        if not self.action:
            return
        event = self._event(AuditOutcome.DONE, status)
        if self._counted:
            self._trail.add_counted(attrs.evolve(event, target_id=None, target_name="", details={}))
            return
        if self._attached is not None and self._attached.written:
            return
        try:
            await context.store.write(lambda tx: insert(tx, [event]))
        except Unavailable:
            self._trail.add(event)

    def ended(self, status: int) -> None:
        """It was refused, or failed. Repeated ones within a minute are counted."""
        outcome = AuditOutcome.REFUSED if status in REFUSALS else AuditOutcome.FAILED
        self._trail.add_counted(self._event(outcome, status))

    def _event(
        self,
        outcome: AuditOutcome,
        status: int,
        *,
        at: datetime | None = None,
        target: AuditTarget | None = None,
    ) -> AuditEvent:
        actor, aim = self.actor, target or self.target
        return AuditEvent(
            at=at or self._now,
            action=self.action,
            outcome=outcome,
            status=status,
            actor_id=actor.id,
            actor_name=legible(actor.name),
            actor_role=actor.role,
            means=actor.means,
            api_key_id=actor.api_key_id,
            address=self.address,
            target_type=aim.type,
            target_id=aim.id,
            target_name=aim.name,
            details=dict(self.details),
        )


def _is_short(details: object) -> bool:
    return len(orjson.dumps(details, default=str)) <= LARGEST


def _bounded(details: Mapping[str, Any]) -> Mapping[str, Any]:
    """Each of the details whole, or only the names of its fields where it is large."""
    return {what: one if _is_short(one) else sorted(one) for what, one in details.items()}


def start(context: ApiContext, request: ApiRequest, action: str) -> AuditRecorder:
    """The recorder of a call that has just come, its caller unknown."""
    recorder = AuditRecorder(context.trail, context.clock(), action, legible(request.peer, 64))
    claimed = request.text(b"x-forwarded-for") or request.text(b"forwarded")
    if claimed:  # a client may write anything there
        recorder.details["claimed_address"] = legible(claimed, 128)
    return recorder


def record_claimed_actor(recorder: AuditRecorder, context: ApiContext, credentials: Credentials) -> None:
    """Of a caller that was refused: whom its credentials name, unproved."""
    snapshot = context.store.snapshot
    if credentials.basic is not None:
        recorder.tries(snapshot.find(User, username=credentials.basic[0]), "basic")
        return
    match parse(credentials.bearer or ""):
        case ApiKeyText(access=access):
            key = snapshot.find(ApiKey, access_key=access)
            if key is not None:
                recorder.tries(snapshot.get(User, key.user_id), "key")
                recorder.actor = attrs.evolve(recorder.actor, api_key_id=key.id)
        case WorkerKeyText(worker_id=worker_id):
            worker = snapshot.get(Worker, worker_id)
            if worker is not None:
                recorder.actor = Actor(id=worker.id, name=worker.name, means="worker")
        case None:
            pass


def noun_of(cls: type[Record]) -> str:
    """What the trail calls a record of this class: ``model-instance``."""
    return table_of(cls).removesuffix("s").replace("_", "-")


def name_of(record: Record) -> str:
    """The name by which people know a record."""
    for field in ("name", "username"):
        if isinstance(name := getattr(record, field, None), str):
            return name
    source = getattr(record, "source", None)
    return str(getattr(source, "readable", ""))
