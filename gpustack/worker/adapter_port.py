"""What a running engine is asked about its LoRA adapters: which it has, to load one, to unload one."""

from __future__ import annotations

import json
from contextlib import suppress

import attrs

from gpustack.domain.model import Model
from gpustack.engines.adapter import Adapter, AdapterCall, LoadsAdapters
from gpustack.errors import Unavailable
from gpustack.worker.engine_key import without_keys
from gpustack.worker.probe import Prober

_LIST_WITHIN = 10.0
_LOAD_WITHIN = 300.0
"""Seconds: an engine under load reads a large adapter from a slow disk."""
_LONGEST_REFUSAL = 500


class AdapterRefused(Exception):
    """The engine does not do it. ``str()`` is why; ``outgrown``: one that is started anew would."""

    def __init__(self, why: str, outgrown: bool) -> None:
        super().__init__(why)
        self.outgrown = outgrown


@attrs.frozen
class AdapterPort:
    """The adapters of one deployment in the engine at a port. All calls raise ``Unavailable`` where it does not answer
    in time; they are cancellable, and what became of a cancelled one is to be asked."""

    _prober: Prober
    _port: int
    _engine: LoadsAdapters
    _model: Model

    async def loaded(self) -> dict[str, str]:
        """Those that it has, each with its path."""
        path = self._engine.adapter_list
        status, answer = await self._prober.ask(self._port, "GET", path, within=_LIST_WITHIN)
        if status != 200:
            raise Unavailable(f"The engine answered {path} with {status}")
        try:
            found = self._engine.loaded(answer)
        except ValueError as error:
            raise Unavailable(f"The engine's answer to {path} is {error}") from error
        return {name: path for name, path in found.items() if name.startswith(f"{self._model.name}:")}

    async def load(self, adapter: Adapter) -> None:
        """Have it load one that it does not have. Raises ``AdapterRefused``."""
        await self._call(self._engine.loading(adapter))

    async def unload(self, name: str) -> None:
        """Have it forget one. Raises ``AdapterRefused``."""
        await self._call(self._engine.unloading(name))

    async def _call(self, call: AdapterCall) -> None:
        body = json.dumps(dict(call.body)).encode()
        status, answer = await self._prober.ask(self._port, "POST", call.path, body, within=_LOAD_WITHIN)
        if status != 200:
            refusal = _refusal(status, answer)
            raise AdapterRefused(refusal, self._engine.outgrown(self._model, refusal))


def _refusal(status: int, answer: bytes) -> str:
    """What the engine says, in one line; it may quote paths."""
    text = answer.decode(errors="replace")
    with suppress(ValueError, KeyError, TypeError, RecursionError):
        text = str(json.loads(answer)["error"]["message"])
    text = " ".join(without_keys(text).split())[:_LONGEST_REFUSAL]
    return text or f"the engine answered {status}"
