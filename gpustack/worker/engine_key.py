"""The API keys of this machine's engines: an engine answers only requests that carry its key."""

from __future__ import annotations

import random
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Final

import attrs

from gpustack.http1.fields import Fields
from gpustack.nursery.adopt import leader_runs
from gpustack.nursery.limiter import threads
from gpustack.nursery.state import GroupState, read_states

SECRET: Final = "api_key"
"""The name of an engine's key among the secrets in its state file."""
_BEGINS: Final = "gpustack-engine-"
_DIGITS: Final = 32
_KEY: Final = re.compile(rf"{_BEGINS}[0-9a-f]{{{_DIGITS}}}")
_KEY_BYTES: Final = re.compile(_KEY.pattern.encode())
_LENGTH: Final = len(_BEGINS) + _DIGITS
_SHOWN_AS: Final = "gpustack-engine-***"
_threads = threads("engine keys", 1)


def make_engine_key(rng: random.Random) -> str:
    """128 random bits behind a fixed prefix, by which a key can be found in a text."""
    return f"{_BEGINS}{rng.getrandbits(4 * _DIGITS):0{_DIGITS}x}"


def without_keys(text: str) -> str:
    """``text``, which an engine wrote, with every key in it masked."""
    return _KEY.sub(_SHOWN_AS, text)


class KeyFilter:
    """Masks the keys in a text that comes in pieces."""

    def __init__(self) -> None:
        self._kept = b""

    def feed(self, piece: bytes) -> bytes:
        """The piece with its keys masked. A tail that may be the beginning of a key is kept until the next piece."""
        text = _KEY_BYTES.sub(_SHOWN_AS.encode(), self._kept + piece)
        at = _may_begin_at(text)
        self._kept = text[at:]
        return text[:at]

    def rest(self) -> bytes:
        """The tail that was kept. Call it at the end of the text."""
        kept, self._kept = self._kept, b""
        return kept


def _may_begin_at(text: bytes) -> int:
    """The index where an incomplete key begins at the end of ``text``; its length when there is none."""
    begins, start = _BEGINS.encode(), max(0, len(text) - _LENGTH + 1)
    found = text.find(begins[:1], start)
    while found >= 0:
        tail = text[found:]
        if begins.startswith(tail) or (
            tail.startswith(begins) and not tail[len(begins) :].strip(b"0123456789abcdef")
        ):
            return found
        found = text.find(begins[:1], found + 1)
    return len(text)


@attrs.define(eq=False, repr=False)
class EngineKeys:
    """The key of each engine by its port, as the header that a request to it carries."""

    _by_port: dict[int, Fields] = attrs.field(factory=dict)

    def fields(self, port: int) -> Fields:
        """The header for requests to the engine on ``port``; empty for an engine without a key."""
        return self._by_port.get(port, ())

    @contextmanager
    def of(self, port: int, secrets: Mapping[str, str]) -> Iterator[None]:
        """Within this block the key of the engine on ``port`` is known. Engines of former versions have none."""
        key = secrets.get(SECRET)
        own = self._by_port[port] = _fields(key)
        try:
            yield
        finally:
            if self._by_port.get(port) is own:
                del self._by_port[port]

    async def expect(self, folder: Path) -> None:
        """Read the keys of engines that a former daemon left: requests to them come before they are adopted."""
        for state in await _threads.run(_left_running, folder):
            if state.port is not None and state.port not in self._by_port:
                self._by_port[state.port] = _fields(state.secrets.get(SECRET))

    def __repr__(self) -> str:
        return f"<EngineKeys of {len(self._by_port)} engines>"


def _left_running(folder: Path) -> list[GroupState]:
    return [state for state in read_states(folder) if isinstance(state, GroupState) and leader_runs(state)]


def _fields(key: str | None) -> Fields:
    return () if key is None else ((b"authorization", b"Bearer " + key.encode()),)
