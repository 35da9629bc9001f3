"""What the audit trail is told of a call: who, from where, what of what, and how it ended."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
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
from gpustack.identity.authentication import Credentials
from gpustack.identity.keys import ApiKeyText, WorkerKeyText, parse
from gpustack.server.audit_trail import AuditTrail, insert
from gpustack.store.attached_write import AttachedWrite, accompanied
from gpustack.store.transaction import Tx

from .context import ApiContext
from .mask import legible, told
from .request import ApiRequest
from .shape import Document, JsonShape
from .wire import Doc, plain

LARGEST = 8 << 10
"""Bytes of details; of a call with more, only the names of the fields are kept."""
SOMEBODY = "(no such account)"
"""In place of a name that nobody has: it may be a password in the wrong field, and strangers choose it."""
LEFT = 499
"""The status of what nobody was left to be answered, before it was known who it was."""
REFUSALS = frozenset({401, 403, 429})


@attrs.frozen(kw_only=True)
class Actor:
    """Who did it, as far as that is known."""

    id: int | None = None
    name: str = ""
    role: str = ""
    means: str = ""
    api_key_id: int | None = None
    proven: bool = False
    """Else it is only what the request says."""

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


@attrs.frozen(kw_only=True)
class AuditTarget:
    """What it was done to."""

    type: str = ""
    id: int | None = None
    name: str = ""

    @classmethod
    def of(cls, record: Record) -> AuditTarget:
        number = None if record.id == UNSAVED else record.id
        return cls(type=noun_of(type(record)), id=number, name=legible(name_of(record)))


@attrs.define(eq=False)
class AuditRecorder:
    """One call, as it is told of when it is over. Handlers add what only they know."""

    _trail: AuditTrail
    _now: datetime
    action: str
    address: str
    actor: Actor = Actor()
    target: AuditTarget = AuditTarget()
    details: dict[str, Any] = attrs.field(factory=dict)
    _counted: bool = False
    """This person has made so many changes just now that they are counted."""
    _companion: AttachedWrite | None = None

    def acts(self, principal: Principal) -> None:
        """It is known who calls."""
        self.actor = Actor.of(principal)

    def signs_in(self, user: User, means: str) -> None:
        """Somebody proved to be this account, by other means than a request's own."""
        role = "admin" if user.is_admin else "user"
        self.actor = Actor(id=user.id, name=user.username, role=role, means=means, proven=True)

    def tries(self, user: User | None, means: str) -> None:
        """Somebody says to be this account, and has not shown it; ``None`` where there is no such account."""
        if user is None:
            self.actor = Actor(name=SOMEBODY, means=means)
        else:
            self.actor = Actor(id=user.id, name=user.username, means=means)

    def concerns(self, record: Record) -> None:
        """What it is done to."""
        self.target = AuditTarget.of(record)

    def sets(self, document: Mapping[str, Any], shape: JsonShape, before: Doc | None = None) -> None:
        """Which fields are written: those of a new thing, or those that differ from ``before``."""
        fields = shape.fields if isinstance(shape, Document) else {}
        now = {name: plain(value) for name, value in document.items() if name in fields}
        if before is None:
            self._tell("fields", {name: told(now[name], fields[name], name) for name in now})
            return
        changes = {
            name: {
                **({"from": told(plain(before[name]), fields[name], name)} if name in before else {}),
                "to": told(value, fields[name], name),
            }
            for name, value in now.items()
            if name not in before or plain(before[name]) != value
        }
        self._tell("changes", changes)

    def _tell(self, what: str, details: Mapping[str, Any]) -> None:
        short = len(orjson.dumps(details, default=str)) <= LARGEST
        self.details[what] = details if short else sorted(details)

    # -- how it ended

    @contextmanager
    def with_the_change(self, *, told: bool = True) -> Iterator[None]:
        """Within the block, what is written of records takes the event along: both are there, or neither is."""
        if not told:
            yield
            return
        if self.actor.id is not None and self.actor.role != Role.ADMIN.value:
            self._counted = not self._trail.has_room_for(self.actor.id)
        self._companion = AttachedWrite(self._write)
        with accompanied(self._companion):
            yield

    def _write(self, tx: Tx, result: object) -> None:
        """In the writer's thread, while the call waits."""
        if self._counted:
            return
        target = (
            AuditTarget.of(result) if self.target.id is None and isinstance(result, Record) else self.target
        )
        insert(tx, [self._event(AuditOutcome.DONE, 200, at=tx.now, target=target)])

    async def done(self, context: ApiContext, status: int) -> None:
        """It was done. Where no record was changed, the event is stored now, or else as soon as it can be."""
        if not self.action:
            return
        event = self._event(AuditOutcome.DONE, status)
        if self._counted:
            self._trail.add_counted(attrs.evolve(event, target_id=None, target_name="", details={}))
            return
        if self._companion is not None and self._companion.written:
            return
        try:
            await context.store.write(lambda tx: insert(tx, [event]))
        except Unavailable:
            self._trail.add(event)

    def ended(self, status: int) -> None:
        """It was refused, or failed."""
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


def begun(context: ApiContext, ask: ApiRequest, action: str) -> AuditRecorder:
    """A note of a call that has just come; nobody knows yet who makes it."""
    note = AuditRecorder(context.trail, context.clock(), action, legible(ask.peer, 64))
    claimed = ask.text(b"x-forwarded-for") or ask.text(b"forwarded")
    if claimed:  # anybody may write these
        note.details["claimed_address"] = legible(claimed, 128)
    return note


def tries(note: AuditRecorder, context: ApiContext, credentials: Credentials) -> None:
    """Somebody was not let in: whom the credentials speak of, which proves nothing."""
    snapshot = context.store.snapshot
    if credentials.basic is not None:
        note.tries(snapshot.find(User, username=credentials.basic[0]), "basic")
        return
    match parse(credentials.bearer or ""):
        case ApiKeyText(access=access):
            key = snapshot.find(ApiKey, access_key=access)
            if key is not None:
                note.tries(snapshot.get(User, key.user_id), "key")
                note.actor = attrs.evolve(note.actor, api_key_id=key.id)
        case WorkerKeyText(worker_id=worker_id):
            worker = snapshot.get(Worker, worker_id)
            if worker is not None:
                note.actor = Actor(id=worker.id, name=worker.name, means="worker")
        case None:
            pass


def noun_of(cls: type[Record]) -> str:
    """What a record of this class is called in the trail: ``model-instance``."""
    return table_of(cls).removesuffix("s").replace("_", "-")


def name_of(record: Record) -> str:
    """What people call the record."""
    for field in ("name", "username"):
        if isinstance(name := getattr(record, field, None), str):
            return name
    source = getattr(record, "source", None)
    return str(getattr(source, "readable", ""))
