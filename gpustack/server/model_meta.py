"""What a model's engine tells of it (voices, languages, longest context), kept in its record."""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, Iterator, Mapping
from math import inf
from typing import Any

import attrs
import orjson
import trio

from gpustack.domain.instance import ModelInstance
from gpustack.domain.lifecycle import InstanceState
from gpustack.domain.model import Model
from gpustack.domain.snapshot import Snapshot
from gpustack.domain.worker import Worker
from gpustack.errors import GpustackError
from gpustack.nursery.quarantine import Quarantine
from gpustack.store.fenced_store import RecordStore
from gpustack.store.transaction import Tx

log = logging.getLogger(__name__)

TOLD = ("voices", "languages", "max_model_len")
"""Members of an entry of an engine's ``/v1/models`` that are kept."""
_LARGEST = 64 << 10
"""Bytes of all of them together."""
_TRY_AGAIN = 5.0
_TRIES = 3

AskEngine = Callable[[Worker, int], Awaitable[Mapping[str, Any]]]
"""The first entry of the ``/v1/models`` of the engine on a port of a worker. Raises ``GpustackError``."""


@attrs.frozen
class _RunningModel:
    """A model, and the instance of its generation that is to be asked."""

    model: Model
    instance: ModelInstance
    worker: Worker
    port: int


@attrs.frozen(repr=False)
class ModelMetaReader:
    """A loop woken by commits: asks one running instance of each generation of a model, once.

    An engine that does not answer is asked three times; most engines have nothing to tell.
    """

    _store: RecordStore
    _ask: AskEngine
    _faults: Quarantine = attrs.field(factory=lambda: Quarantine("model meta"))
    name: str = "model-meta"

    async def run(self, *, task_status: trio.TaskStatus[None]) -> None:
        told: dict[int, int] = {}
        tries: dict[tuple[int, int], int] = {}
        with self._store.watch({"models", "model_instances"}) as wake:
            task_status.started()
            while True:
                failed = False
                self._faults.keep_only(self._store.snapshot.models)
                for one in list(_unasked(self._store.snapshot, told)):
                    key = (one.model.id, one.model.generation)
                    done = False
                    with self._faults.row(one.model.id):
                        done = await self._read(one)
                    tries[key] = tries.get(key, 0) + 1
                    if done or tries[key] >= _TRIES:
                        told[one.model.id] = one.model.generation
                        tries.pop(key)
                    else:
                        failed = True
                await wake.wait(_TRY_AGAIN if failed else inf)

    async def _read(self, one: _RunningModel) -> bool:
        """Whether the engine answered; what it tells is written then."""
        try:
            meta = meta_of(await self._ask(one.worker, one.port))
        except GpustackError as error:
            log.debug("An engine does not tell of its model: model=%s reason=%s", one.model.name, error)
            return False

        def write(tx: Tx) -> None:
            model = tx.get(Model, one.model.id)
            if model is not None and model.generation == one.model.generation and model.meta != meta:
                tx.change(Model, model.id, meta=meta)

        await self._store.write(write)
        return True

    def __repr__(self) -> str:
        return "<ModelMetaReader>"


def meta_of(entry: Mapping[str, Any]) -> dict[str, Any]:
    """What is kept of an entry of ``/v1/models``; nothing where it is too large."""
    meta = {name: entry[name] for name in TOLD if entry.get(name) is not None}
    return meta if len(orjson.dumps(meta)) <= _LARGEST else {}


def _unasked(snapshot: Snapshot, told: Mapping[int, int]) -> Iterator[_RunningModel]:
    for instance in snapshot.instances.values():
        model = snapshot.models.get(instance.model_id)
        worker = snapshot.workers.get(instance.worker_id or 0)
        if model is None or worker is None or instance.port is None or told.get(model.id) == model.generation:
            continue
        if instance.state is InstanceState.RUNNING and instance.generation == model.generation:
            told = {**told, model.id: model.generation}  # one instance of each model
            yield _RunningModel(model, instance, worker, instance.port)
