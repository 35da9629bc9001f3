"""What needs a decision, worked out once for all who ask."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime, timedelta

import attrs
import trio

from gpustack.domain.instance import ModelInstance
from gpustack.domain.model import Model
from gpustack.errors import NotFound
from gpustack.policy.attention import AttentionLook, Trouble, attention, waits_for_decision
from gpustack.policy.placement import GangSettings
from gpustack.policy.remedy import Remedy
from gpustack.server.evaluation import explain_instance
from gpustack.server.facts import FactsCache
from gpustack.server.survival import SurvivalWatch
from gpustack.server.update_check import UpdateCheck
from gpustack.store.store import Store

MOST_ASKED = 3
"""Models for which one answer looks for what would help; the next one looks for the others."""
WITHIN = 2.0
"""Seconds that an answer waits for that."""
PAUSE = 0.25
"""Seconds between two answers that have to be worked out: who asks meanwhile waits and shares the next one."""
_AGAIN = 10.0
"""Seconds after which it is looked for again, where why a replica waits has changed."""


@attrs.frozen
class _FoundRemedies:
    """What would help a model, of which version and for which reason, found when."""

    version: int
    message: str
    at: float
    remedies: Sequence[Remedy]


@attrs.define(eq=False, repr=False)
class AttentionBoard:
    """Owns the last answer, which holds for one revision of the records, and what would help the models that wait."""

    _store: Store
    _facts: FactsCache | None
    _gangs: GangSettings
    _silence_allowed: timedelta | None
    _survival: SurvivalWatch | None
    _updates: UpdateCheck | None
    _version: str
    _certificate_ends: Callable[[], datetime | None]
    _now: Callable[[], datetime]
    _known: dict[int, _FoundRemedies] = attrs.field(factory=dict)
    _looking: trio.Event | None = None
    _made_of: tuple[object, ...] = ()
    _made: Sequence[Trouble] = ()
    _revision: int = -1
    _next_at: float = -math.inf

    async def troubles(self) -> Sequence[Trouble]:
        """All of them, the worst first. Waits ``WITHIN`` seconds for what would help those that wait."""
        with trio.move_on_after(WITHIN):
            await self._look_for_remedies()
        if self._store.snapshot.revision != self._revision:
            await trio.sleep_until(self._next_at)
        snapshot, survival = self._store.snapshot, None if self._survival is None else self._survival.report
        fault = None if self._store.failure is None else str(self._store.failure)
        remedies = self._remedies()
        minute = self._now().replace(second=0, microsecond=0)  # some troubles pass with time alone
        ends = self._certificate_ends()
        made_of = (snapshot.revision, survival, fault, remedies, self._latest, minute, ends)
        if made_of != self._made_of:
            look = AttentionLook(
                snapshot=snapshot,
                now=self._now(),
                remedies=remedies,
                losses={} if survival is None else survival.losses,
                version=self._version,
                latest_version=self._latest,
                database_fault=fault,
                certificate_ends=ends,
            )
            self._made, self._made_of = attention(look), made_of
            self._revision, self._next_at = snapshot.revision, trio.current_time() + PAUSE
        return self._made

    @property
    def _latest(self) -> str | None:
        """A version that was announced and is not the one that runs."""
        latest = None if self._updates is None else self._updates.latest
        return latest if latest != self._version else None

    def _remedies(self) -> Mapping[int, Sequence[Remedy]]:
        return {key: found.remedies for key, found in self._known.items()}

    async def _look_for_remedies(self) -> None:
        """Look for what would help some models of which replicas wait. One caller at a time looks, for all."""
        while self._looking is not None:
            await self._looking.wait()
        waiting = self._waiting()
        for gone in self._known.keys() - waiting.keys():
            del self._known[gone]
        due = [pair for pair in waiting.values() if self._is_due(*pair)]
        if self._facts is None or not due:
            return
        self._looking = trio.Event()
        try:
            for model, instance in due[:MOST_ASKED]:
                await self._look(self._facts, model, instance)
        finally:
            self._looking.set()
            self._looking = None

    def _waiting(self) -> dict[int, tuple[Model, ModelInstance]]:
        """The models of which replicas wait, each with its first such replica."""
        snapshot = self._store.snapshot
        found: dict[int, tuple[Model, ModelInstance]] = {}
        for instance in snapshot.instances.values():
            if waits_for_decision(instance) and not instance.deleted_at:
                model = snapshot.models.get(instance.model_id)
                if model is not None:
                    found.setdefault(model.id, (model, instance))
        return found

    def _is_due(self, model: Model, instance: ModelInstance) -> bool:
        known = self._known.get(model.id)
        if known is None or known.version != model.version:
            return True
        return known.message != instance.state_message and trio.current_time() - known.at >= _AGAIN

    async def _look(self, facts: FactsCache, model: Model, instance: ModelInstance) -> None:
        try:
            found = await explain_instance(
                self._store, facts, instance.id, self._gangs, silence_allowed=self._silence_allowed
            )
        except NotFound:  # it has ended meanwhile
            return
        self._known[model.id] = _FoundRemedies(
            model.version, instance.state_message, trio.current_time(), found.changes
        )

    def __repr__(self) -> str:
        return f"<AttentionBoard: {len(self._made)} troubles, remedies for {len(self._known)} models>"
