"""The keys of this machine's engines: who asks one of them proves by its key that it is this daemon."""

from __future__ import annotations

import random
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Final

import attrs

from gpustack.http1.reply import Fields
from gpustack.nursery.adopt import is_led
from gpustack.nursery.limiter import threads
from gpustack.nursery.state import GroupState, read_states

SECRET: Final = "api_key"
"""Under which an engine's key stands among what is written down of its process."""
_BEGINS: Final = "gpustack-engine-"
_DIGITS: Final = 32
_KEY: Final = re.compile(rf"{_BEGINS}[0-9a-f]{{{_DIGITS}}}")
_KEY_BYTES: Final = re.compile(_KEY.pattern.encode())
_LENGTH: Final = len(_BEGINS) + _DIGITS
_SHOWN_AS: Final = "gpustack-engine-***"
_threads = threads("engine keys", 1)


def make_engine_key(rng: random.Random) -> str:
    """128 random bits behind a beginning by which they can be found in a text."""
    return f"{_BEGINS}{rng.getrandbits(4 * _DIGITS):0{_DIGITS}x}"


def without_keys(text: str) -> str:
    """A text of an engine without the keys that it may have written into it."""
    return _KEY.sub(_SHOWN_AS, text)


class KeyFilter:
    """Takes the keys out of a text that comes in pieces."""

    def __init__(self) -> None:
        self._kept = b""

    def feed(self, piece: bytes) -> bytes:
        """The piece without keys. What may be the beginning of one is kept until the next piece."""
        text = _KEY_BYTES.sub(_SHOWN_AS.encode(), self._kept + piece)
        at = _may_begin_at(text)
        self._kept = text[at:]
        return text[:at]

    def rest(self) -> bytes:
        """What has been kept: the text ends here."""
        kept, self._kept = self._kept, b""
        return kept


def _may_begin_at(text: bytes) -> int:
    """Where a key begins that the text does not hold to its end; the text's length when none does."""
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
    """The key of each engine by its port: a header for whoever of this daemon asks the engine."""

    _by_port: dict[int, Fields] = attrs.field(factory=dict)

    def fields(self, port: int) -> Fields:
        """The header to ask the engine on ``port`` with; none for one that has no key."""
        return self._by_port.get(port, ())

    @contextmanager
    def of(self, port: int, secrets: Mapping[str, str]) -> Iterator[None]:
        """The key of the engine on ``port`` is known while this is entered; engines of former versions have none."""
        key = secrets.get(SECRET)
        own = self._by_port[port] = _fields(key)
        try:
            yield
        finally:
            if self._by_port.get(port) is own:
                del self._by_port[port]

    async def expect(self, folder: Path) -> None:
        """Know the keys of engines that a former daemon left: requests come before they are adopted."""
        for state in await _threads.run(_left_running, folder):
            if state.port is not None and state.port not in self._by_port:
                self._by_port[state.port] = _fields(state.secrets.get(SECRET))

    def __repr__(self) -> str:
        return f"<EngineKeys of {len(self._by_port)} engines>"


def _left_running(folder: Path) -> list[GroupState]:
    return [state for state in read_states(folder) if isinstance(state, GroupState) and is_led(state)]


def _fields(key: str | None) -> Fields:
    return () if key is None else ((b"authorization", b"Bearer " + key.encode()),)
