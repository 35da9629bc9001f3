"""A request as every transport hands it in, and its query string."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, Mapping
from urllib.parse import parse_qsl

import attrs

from gpustack.errors import BadRequest
from gpustack.server.memory_budget import MemoryReservation

from .problems import MalformedRequest

_MOST_QUERY_FIELDS = 200
_YES = frozenset({"true", "1", "yes", "on"})
_NO = frozenset({"false", "0", "no", "off", ""})


@attrs.frozen
class Query:
    """The query string, decoded. Names that no route knows are ignored."""

    pairs: tuple[tuple[str, str], ...] = ()

    @classmethod
    def of(cls, raw: str) -> Query:
        """Raises ``BadRequest`` for more than ``_MOST_QUERY_FIELDS`` fields."""
        try:
            return cls(tuple(parse_qsl(raw, keep_blank_values=True, max_num_fields=_MOST_QUERY_FIELDS)))
        except ValueError as error:
            raise BadRequest(f"The query string has more than {_MOST_QUERY_FIELDS} fields") from error

    def one(self, *names: str) -> str | None:
        """The last value under any of the names."""
        found = [value for name, value in self.pairs if name in names]
        return found[-1] if found else None

    def many(self, *names: str) -> list[str]:
        """All values under any of the names."""
        return [value for name, value in self.pairs if name in names]

    def flag(self, name: str) -> bool:
        """Whether it is given and true. Raises ``MalformedRequest`` when it is neither true nor false."""
        text = (self.one(name) or "false").lower()
        if text not in _YES and text not in _NO:
            raise MalformedRequest(f"{name}: must be true or false")
        return text in _YES

    def whole(self, name: str, default: int, *, least: int, most: int | None = None) -> int:
        """An integer. Raises ``MalformedRequest`` when it is none, or out of bounds."""
        text = self.one(name)
        if text is None:
            return default
        value = int(text) if is_whole(text) else None
        if value is None or value < least or (most is not None and value > most):
            bounds = f"from {least} to {most}" if most is not None else f"of at least {least}"
            raise MalformedRequest(f"{name}: must be a whole number {bounds}")
        return value


def is_whole(text: str) -> bool:
    """Whether the text is an integer that fits 64 bits."""
    digits = text.removeprefix("-")
    return digits.isascii() and digits.isdigit() and len(digits) < 19


async def _unknown_owner() -> int | None:
    return None


@attrs.frozen(kw_only=True)
class ApiRequest:
    """A request as its transport understood it."""

    method: str
    path: str
    header: Callable[[bytes], bytes | None]
    """Takes a name in lower case."""
    peer: str
    """The address that it comes from, as the socket says."""
    body: Callable[[], Awaitable[bytes]]
    """Reads all of it. Raises ``PayloadTooLarge``."""
    hold: MemoryReservation | None = None
    """Counts what is kept in memory for it."""
    params: Mapping[str, str] = attrs.field(factory=dict)
    """What stands in the path where the route has ``{name}``."""
    query: Query = Query()
    header_names: Callable[[], Iterable[bytes]] = tuple
    """In lower case."""
    owner: Callable[[], Awaitable[int | None]] = _unknown_owner
    """The user id of the program on this machine that sends it; ``None`` where it cannot be told."""

    def text(self, name: bytes) -> str:
        """A header as text, empty when absent."""
        return (self.header(name) or b"").decode("latin-1")
