"""Keeps on record which head of Ray there is: the one that the leading server runs, while it is up."""

from __future__ import annotations

import logging
from functools import partial

import attrs
import trio

from gpustack.domain.ray import ONLY, RayHead
from gpustack.errors import Unavailable
from gpustack.nursery.wake import AsyncValue, first_of
from gpustack.ray.process import RayProcess
from gpustack.store.fenced_store import RecordStore
from gpustack.store.transaction import Tx

log = logging.getLogger(__name__)

_TRY_AGAIN = 2.0


@attrs.frozen(kw_only=True)
class OwnRay:
    """The Ray of this server's machine, and who this server is. ``up`` is ``None`` inside while it is not up."""

    up: AsyncValue[RayProcess | None]
    server_uuid: str
    worker_uuid: str

    def head(self) -> RayHead | None:
        """The head that this machine is now."""
        running = self.up.value
        if running is None or not running.is_head:
            return None
        return RayHead(
            address=running.address,
            incarnation=running.incarnation,
            ray_version=running.version,
            server_uuid=self.server_uuid,
            worker_uuid=self.worker_uuid,
        )


@attrs.frozen
class RayHeadRecorder:
    """A service of the leading server. A head on record that is not ours is one of a former leader, and is removed: its
    nodes end then, and join ours once that is up."""

    _store: RecordStore
    _own: OwnRay | None
    """``None`` without ``--enable-ray``: then there is none."""
    name: str = "ray-head"

    async def run(self, *, task_status: trio.TaskStatus[None]) -> None:
        task_status.started()
        with self._store.watch({"ray_heads"}) as wake:
            while True:
                revision = -1 if self._own is None else self._own.up.revision
                if not await self._recorded(None if self._own is None else self._own.head()):
                    await trio.sleep(_TRY_AGAIN)
                elif self._own is None:
                    await wake.wait()
                else:
                    await first_of(wake.wait, partial(self._own.up.changed, revision))

    async def _recorded(self, head: RayHead | None) -> bool:
        """Write what differs; false where the database does not take it now."""

        def work(tx: Tx) -> None:
            known = tx.find(RayHead, name=ONLY)
            if known is None:
                if head is not None:
                    tx.insert(head)
            elif head is None:
                tx.delete(known)
            else:
                tx.update(
                    attrs.evolve(
                        known,
                        address=head.address,
                        incarnation=head.incarnation,
                        ray_version=head.ray_version,
                        server_uuid=head.server_uuid,
                        worker_uuid=head.worker_uuid,
                    )
                )

        if head is None and self._store.snapshot.find(RayHead, name=ONLY) is None:
            return True
        try:
            await self._store.write(work)
        except Unavailable as error:
            log.warning(
                "The head of Ray is not on record, for the database does not answer: reason=%s", error
            )
            return False
        return True
