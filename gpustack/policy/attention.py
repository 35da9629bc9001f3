"""What needs a decision of somebody, the worst first, each with what can be done about it through the API."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import UTC, datetime
from enum import StrEnum
from functools import cache
from operator import attrgetter
from types import ModuleType
from typing import Any

import attrs

from gpustack.domain.event import ObjectKind
from gpustack.domain.instance import ModelInstance
from gpustack.domain.lifecycle import SERVING
from gpustack.domain.model import Model
from gpustack.domain.snapshot import Snapshot
from gpustack.plugins import siblings

from .eviction import fits_nowhere
from .remedy import MODEL, REMOVED, WORKER, Remedy
from .survival import WorkerLoss

MOST_OF_KIND = 10
"""Troubles of one kind that are told apart; where there are more, one stands for all but the worst."""
LONGEST_TEXT = 600
NAMED = 3
"""How many things of a group are named in its sentence."""


class TroubleSeverity(StrEnum):
    """``critical``: something does not work. ``warning``: it works less well, or soon will not. ``notice``: it could be
    better."""

    CRITICAL = "critical"
    WARNING = "warning"
    NOTICE = "notice"


class ActionKind(StrEnum):
    """What an action does, where it is not what a remedy of that kind says."""

    REPLACE = "replace"
    ROLL_BACK = "roll_back"
    SCALE = "scale"
    STOP_MODEL = "stop_model"
    REMOVE_WORKER = "remove_worker"
    CORDON = "cordon"
    STOP_DRAIN = "stop_drain"
    FETCH_AGAIN = "fetch_again"
    EVICT_FILES = "evict_files"
    RAISE_BUDGET = "raise_budget"


_RANK = {severity: rank for rank, severity in enumerate(TroubleSeverity)}
_LAST = datetime.max.replace(tzinfo=UTC)


@attrs.frozen(kw_only=True)
class TroubleAction:
    """A request to the API that would end a trouble. ``confirm`` is the question to ask before it is sent, ``None``
    where it does no harm. ``kind`` is one of ``ActionKind``, or that of the remedy which it carries out."""

    kind: str
    label: str
    method: str
    path: str
    body: Mapping[str, Any] | None = None
    confirm: str | None = None


@attrs.frozen(kw_only=True)
class TroubleObject:
    """What it is about. ``kind`` is ``model``, ``worker``, ``model-file``, ``api-key``, ``user`` or ``server``."""

    kind: str
    id: int | None = None
    name: str = ""


@attrs.frozen(kw_only=True)
class Trouble:
    """One thing that needs a decision. ``id`` is the same as long as the trouble lasts; ``count`` is of how many things
    it tells."""

    id: str
    kind: str
    severity: TroubleSeverity
    text: str
    since: datetime | None
    object: TroubleObject
    count: int = 1
    actions: tuple[TroubleAction, ...] = ()


@attrs.frozen(kw_only=True)
class AttentionLook:
    """All that troubles are seen in. Empty or ``None`` where something is not known here."""

    snapshot: Snapshot
    now: datetime
    remedies: Mapping[int, Sequence[Remedy]] = attrs.field(factory=dict)
    """By the id of a model of which replicas wait: what would make one fit, the least costly first."""
    losses: Mapping[int, WorkerLoss] = attrs.field(factory=dict)
    """By the id of a worker: what its loss would do."""
    version: str = ""
    latest_version: str | None = None
    """The newest that was announced, where it is not the one that runs."""
    database_fault: str | None = None
    certificate_ends: datetime | None = None
    """When clients refuse the certificate that the server shows."""
    _by_model: dict[int, list[ModelInstance]] = attrs.field(factory=dict, init=False, repr=False)

    def __attrs_post_init__(self) -> None:
        for instance in self.snapshot.instances.values():
            if instance.deleted_at is None:
                self._by_model.setdefault(instance.model_id, []).append(instance)

    def replicas(self, model_id: int) -> Sequence[ModelInstance]:
        """Those of a model that are not to end."""
        return self._by_model.get(model_id, ())

    def by_model(
        self, wanted: Callable[[ModelInstance], bool]
    ) -> Iterable[tuple[Model, list[ModelInstance]]]:
        """Each model with those of its replicas that are wanted, where there are any."""
        for model_id, replicas in self._by_model.items():
            model, found = self.snapshot.models.get(model_id), [one for one in replicas if wanted(one)]
            if model is not None and found:
                yield model, found

    def serving(self, model_id: int) -> int:
        """How many replicas of a model serve."""
        return sum(one.state in SERVING for one in self.replicas(model_id))

    def severity_of(self, model: Model) -> TroubleSeverity:
        """How bad it is that replicas of a model do not run: worst where none does."""
        return TroubleSeverity.WARNING if self.serving(model.id) else TroubleSeverity.CRITICAL


def attention(look: AttentionLook) -> list[Trouble]:
    """All troubles, the worst first, and among those as bad the longest first. There are at most ``MOST_OF_KIND`` of
    each kind."""
    found: list[Trouble] = []
    for kind in kinds():
        of_kind = sorted(kind.find(look), key=_order)
        if len(of_kind) > MOST_OF_KIND:
            rest = of_kind[MOST_OF_KIND - 1 :]
            of_kind = [*of_kind[: MOST_OF_KIND - 1], _together(kind, rest)]
        found += of_kind
    return sorted(found, key=_badness)


@cache
def kinds() -> tuple[ModuleType, ...]:
    """The kinds of trouble: modules of ``troubles/`` with ``KIND``, ``find(look)``, and ``more(count)``, the sentence
    about so many more of them."""
    return tuple(sorted(siblings("gpustack.policy.troubles"), key=attrgetter("KIND")))


def _badness(trouble: Trouble) -> tuple[int, datetime]:
    return _RANK[trouble.severity], trouble.since or _LAST


def _order(trouble: Trouble) -> tuple[int, datetime, str]:
    return *_badness(trouble), trouble.id


def _together(kind: ModuleType, rest: Sequence[Trouble]) -> Trouble:
    first = rest[0]
    return Trouble(
        id=f"{kind.KIND}:more",
        kind=kind.KIND,
        severity=first.severity,
        text=kind.more(len(rest)),
        since=first.since,
        object=TroubleObject(kind=first.object.kind),
        count=sum(one.count for one in rest),
    )


# --- for the kinds


def waits_for_decision(instance: ModelInstance) -> bool:
    """Whether it fits nowhere, and no place is kept for it until others have ended."""
    return fits_nowhere(instance) and instance.reserved is None


def of_model(model: Model) -> TroubleObject:
    return TroubleObject(kind=ObjectKind.MODEL.value, id=model.id, name=model.name)


def earliest(instants: Iterable[datetime | None]) -> datetime | None:
    """The first of those that are known."""
    return min((one for one in instants if one is not None), default=None)


def cut(text: str) -> str:
    """The beginning of a long text."""
    return text if len(text) <= LONGEST_TEXT else f"{text[: LONGEST_TEXT - 1]}…"


def want_replicas(label: str, model: Model, replicas: int, confirm: str | None = None) -> TroubleAction:
    """Set how many replicas a deployment wants."""
    return TroubleAction(
        kind=ActionKind.SCALE if replicas else ActionKind.STOP_MODEL,
        label=label,
        method="PUT",
        path=f"/v1/models/{model.id}",
        body={"replicas": replicas},
        confirm=confirm,
    )


def by_remedy(remedy: Remedy) -> TroubleAction | None:
    """The request that does what a remedy says; ``None`` where it takes more than one, or none can."""
    if not remedy.by_api or not remedy.changes or remedy.added is not None:
        return None
    targets = {(change.of, change.id) for change in remedy.changes}
    if len(targets) != 1:
        return None
    ((of, key),) = targets
    label = remedy.sentence[:1].upper() + remedy.sentence[1:]
    if any(change.field == REMOVED for change in remedy.changes):
        name = remedy.changes[0].name
        return TroubleAction(
            kind=remedy.kind,
            label=label,
            method="DELETE",
            path=f"/v1/model-instances/{key}",
            confirm=f"End instance {name}?",
        )
    path = {MODEL: "/v1/models", WORKER: "/v1/workers"}[of]
    body = {change.field: change.value for change in remedy.changes}
    return TroubleAction(
        kind=remedy.kind,
        label=label,
        method="PUT",
        path=f"{path}/{key}",
        body=body,
        confirm=f"Change {remedy.changes[0].name}?",
    )
