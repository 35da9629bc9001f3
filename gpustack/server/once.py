"""A work of the store that is either begun or withdrawn, and its caller knows which."""

from __future__ import annotations

import threading
from collections.abc import Callable

import attrs

from gpustack.store.transaction import Tx


@attrs.define(eq=False)
class WithdrawableWrite:
    """The work of one flush: given up in its midst without this, it could be stored and then stored again."""

    _work: Callable[[Tx], None]
    _begun: threading.Lock = attrs.field(factory=threading.Lock)

    def __call__(self, tx: Tx) -> None:
        if self._begun.acquire(blocking=False):
            self._work(tx)

    def withdraw(self) -> bool:
        """Keep it from being done; false when it has begun."""
        return self._begun.acquire(blocking=False)
