"""Has instances of lower priority end, and keeps their places for the instances that need them."""

from __future__ import annotations

import logging
from collections.abc import Mapping

from gpustack.domain.instance import ModelInstance
from gpustack.domain.lifecycle import DEFER
from gpustack.domain.model import Model
from gpustack.policy.preemption import Preemption, confirmed, title
from gpustack.server.lifecycle import make_move, make_room
from gpustack.store.fenced_store import RecordStore
from gpustack.store.transaction import Tx
from gpustack.text import storable

log = logging.getLogger(__name__)


async def keep_places(store: RecordStore, asked: Mapping[int, Preemption]) -> None:
    """Do as was decided, by the ids of the instances that wait, in one transaction that looks again at the workers of
    each place. What does not hold any more is left to the next pass: what has changed has woken it."""

    def work(tx: Tx) -> list[Preemption]:
        snapshot, found = tx.snapshot, []
        for one in asked.values():
            now = confirmed(one, snapshot) if _is_as_decided(tx, one) else None
            if now is None:
                continue
            for victim in now.victims:
                make_room(tx, victim, title(now.request.model))
            message = storable(now.sentence(snapshot))
            make_move(tx, now.instance, DEFER, message, reserved=now.placement)
            snapshot = now.carried_out(snapshot)
            found.append(now)
        return found

    for done in await store.write(work):
        if not done.victims:
            continue
        log.warning(
            "Instances end for one of higher priority: instance=%s ending=%s",
            done.instance.name,
            [victim.name for victim in done.victims],
        )


def _is_as_decided(tx: Tx, preemption: Preemption) -> bool:
    """Whether the instance and its model are as they were."""
    instance, model = preemption.instance, preemption.request.model
    now, model_now = tx.get(ModelInstance, instance.id), tx.get(Model, model.id)
    if now is None or model_now is None or now.deleted_at is not None:
        return False
    return (now.version, model_now.version) == (instance.version, model.version)
