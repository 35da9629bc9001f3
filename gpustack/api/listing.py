"""Lists: which records a query selects, in which order, and one page of them with the total."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import datetime
from typing import Any

import attrs
import trio

from .problems import MalformedRequest
from .request import Query, is_whole
from .shape import Boolean, Integer, JsonShape, QueryParameter, Text
from .view import Doc, RenderContext

LARGEST_PAGE = 100
ALL = -1
"""The value of ``perPage`` that asks for everything on one page."""

Predicate = Callable[[Any], bool]


@attrs.frozen(kw_only=True)
class ListFilter:
    """A query parameter that selects. ``matches`` says whether an item fits any of the values given."""

    name: str
    matches: Callable[[Any, frozenset[Any]], bool]
    shape: JsonShape = Text()
    many: bool = False
    names: tuple[str, ...] = ()
    """Other names of the parameter."""

    def predicate(self, query: Query) -> Predicate | None:
        """The test for items; ``None`` where the query does not use the filter. Raises ``MalformedRequest``."""
        texts = query.many(self.name, *self.names)
        if not texts:
            return None
        faults: list[str] = []
        values = frozenset(self.shape.read(_value(self.shape, text), self.name, faults) for text in texts)
        if faults:
            raise MalformedRequest(*faults)
        return lambda item: self.matches(item, values)


def equal(name: str, shape: JsonShape, of: Callable[[Any], Any] | None = None, **more: Any) -> ListFilter:
    """A filter for equality with a field of the item (or with what ``of`` makes of the item)."""
    get = of or (lambda item: getattr(item, name))
    return ListFilter(name=name, shape=shape, matches=lambda item, values: get(item) in values, **more)


def _value(shape: JsonShape, text: str) -> Any:
    if isinstance(shape, Integer):
        return int(text) if is_whole(text) else text
    if isinstance(shape, Boolean):
        return {"true": True, "1": True, "false": False, "0": False}.get(text.lower(), text)
    return text


@attrs.frozen(kw_only=True)
class PageRange:
    """Which page of a list is wanted: its number, from 1, and its size."""

    number: int = 1
    size: int = LARGEST_PAGE

    @classmethod
    def of(cls, query: Query) -> PageRange:
        """From ``page`` and ``perPage`` (or ``page_size``). Raises ``MalformedRequest`` when out of bounds."""
        faults = []
        number, size = (
            _whole(query.one("page"), 1),
            _whole(query.one("perPage", "page_size", "per_page"), LARGEST_PAGE),
        )
        if number is None or number < 1:
            faults.append("page: must be a whole number of at least 1")
        if size is None or not (1 <= size <= LARGEST_PAGE or size == ALL):
            faults.append(f"perPage: must be a whole number from 1 to {LARGEST_PAGE}, or {ALL} for all")
        if number is None or size is None or faults:
            raise MalformedRequest(*faults)
        return cls(number=number, size=size)

    def cut(self, items: Sequence[Any]) -> Sequence[Any]:
        if self.size == ALL:
            return items
        return items[(self.number - 1) * self.size : self.number * self.size]

    def pagination(self, total: int) -> Doc:
        size = max(total, 1) if self.size == ALL else self.size
        number = 1 if self.size == ALL else self.number
        return {"page": number, "perPage": size, "total": total, "totalPage": math.ceil(total / size)}


def _whole(text: str | None, default: int) -> int | None:
    if text is None:
        return default
    return int(text) if is_whole(text) else None


@attrs.frozen(kw_only=True)
class ListSelection:
    """What the query of a list may say: its filters, and the texts of an item that ``search`` looks into."""

    filters: tuple[ListFilter, ...] = ()
    search: Callable[[Any], Iterable[str | None]] | None = None

    def predicate(self, query: Query, visible: Predicate) -> Predicate:
        """The test for items that are ``visible`` and fit the query. Raises ``MalformedRequest``."""
        tests = [visible]
        tests.extend(test for one in self.filters if (test := one.predicate(query)) is not None)
        needle = (query.one("search") or "").casefold()
        if needle and self.search is not None:
            texts = self.search
            tests.append(lambda item: any(text and needle in text.casefold() for text in texts(item)))
        return lambda item: all(test(item) for test in tests)

    @property
    def parameters(self) -> tuple[QueryParameter, ...]:
        """The parameters, for the OpenAPI document."""
        own = [QueryParameter(name=f.name, shape=f.shape, many=f.many) for f in self.filters]
        if self.search is not None:
            own.append(QueryParameter(name="search", shape=Text(), note="Part of a name, in any case."))
        return (*own, *COMMON_PARAMETERS)


PAGE_PARAMETERS = (
    QueryParameter(name="page", shape=Integer(least=1), note="Counted from 1."),
    QueryParameter(
        name="perPage", shape=Integer(least=-1, most=LARGEST_PAGE), note="1 to 100 (default), or -1 for all."
    ),
)
COMMON_PARAMETERS = (
    *PAGE_PARAMETERS,
    QueryParameter(
        name="sort_by", shape=Text(), note="Fields separated by commas, each with - for descending."
    ),
)


_AT_ONCE = 100
_MOST_ORDERS = 8
"""Fields to sort by: each is a pass over all items without a checkpoint."""


async def rendered(
    items: Sequence[Any], view: Callable[[Any, RenderContext], Doc], context: RenderContext
) -> list[Doc]:
    """The documents of items. Has a checkpoint every ``_AT_ONCE`` items: inference shares this thread."""
    made: list[Doc] = []
    for item in items:
        made.append(view(item, context))
        if len(made) % _AT_ONCE == 0:
            await trio.lowlevel.checkpoint()
    return made


async def ordered(
    items: list[Any], view: Callable[[Any, RenderContext], Doc], context: RenderContext, query: Query
) -> list[Any]:
    """Sorted as ``sort_by`` says, else the newest first. Raises ``MalformedRequest`` for a field without an order."""
    wanted = [name.strip() for name in (query.one("sort_by", "sortBy") or "").split(",") if name.strip()]
    if len(wanted) > _MOST_ORDERS:
        raise MalformedRequest(f"sort_by: must name at most {_MOST_ORDERS} fields")
    items = sorted(items, key=_age, reverse=True)
    if not wanted or not items:
        return items
    rows = list(zip(await rendered(items, view, context), items, strict=True))
    for name in reversed(wanted):
        field, descending = name.removeprefix("-"), name.startswith("-")
        known = [row for row in rows if _sortable(row[0], field)]
        unknown = [row for row in rows if not _sortable(row[0], field)]
        known.sort(key=lambda row: _comparable(row[0][field]), reverse=descending)
        rows = [*known, *unknown]  # a field that is None comes last in either direction
    return [item for _, item in rows]


def _age(item: Any) -> tuple[float, Any]:
    made = getattr(item, "created_at", None) or getattr(getattr(item, "worker", None), "created_at", None)
    return (made.timestamp() if made else 0.0, item.id)


def _sortable(document: Mapping[str, Any], field: str) -> bool:
    if field not in document:
        raise MalformedRequest(f"sort_by: there is no field {field!r}")
    value = document[field]
    if value is not None and not isinstance(value, str | int | float | datetime):
        raise MalformedRequest(f"sort_by: {field!r} has parts and no order")
    return value is not None


def _comparable(value: Any) -> Any:
    return value.casefold() if isinstance(value, str) else value


def page_document(items: Iterable[Doc], page: PageRange, total: int) -> Doc:
    """The envelope of every list."""
    return {"items": list(items), "pagination": page.pagination(total)}
