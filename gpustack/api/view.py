"""Views: how a record becomes a JSON document, and the JSON itself."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from datetime import date, datetime, timedelta
from enum import Enum
from typing import Any

import attrs
import orjson
import outcome

from gpustack.domain.instance import Claim, summed
from gpustack.domain.load import WorkerLoad
from gpustack.domain.snapshot import Snapshot
from gpustack.domain.worker import Worker
from gpustack.nursery.quarantine import Quarantine
from gpustack.text import washed

from .shape import Document, JsonShape

Doc = dict[str, Any]
_JSON = orjson.OPT_UTC_Z | orjson.OPT_NON_STR_KEYS


def dumps(document: object) -> bytes:
    """A document as JSON: instants in UTC end in ``Z``, keys are text, lone surrogates are escaped."""
    try:
        return orjson.dumps(document, option=_JSON)
    except TypeError:
        return orjson.dumps(washed(document), option=_JSON)


def plain(value: Any) -> Any:
    """A nested value as JSON can hold it. Fields of attrs classes that are ``None`` are left out."""
    cls = type(value)
    if cls in _AS_IT_IS:
        return value
    make = _PLAINERS.get(cls)
    if make is None:
        make = _PLAINERS[cls] = _plainer(cls)
    return make(value)


def plain_but(value: Any, *without: str) -> Doc:
    """The same of an attrs class, without some of its fields."""
    pairs = ((field.name, getattr(value, field.name)) for field in attrs.fields(type(value)))
    return {name: plain(item) for name, item in pairs if item is not None and name not in without}


_AS_IT_IS = frozenset({type(None), bool, int, float, str, datetime, date})


_PLAINERS: dict[type[Any], Callable[[Any], Any]] = {}
"""By class: found out once, for a list of workers is made of ten thousands of values."""


def _plainer(cls: type[Any]) -> Callable[[Any], Any]:
    """What makes the values of a class plain."""
    if issubclass(cls, Enum):
        return lambda value: value.value
    if issubclass(cls, bool | int | float | datetime | date | str):
        return lambda value: value
    if issubclass(cls, Mapping):
        return lambda value: {str(key): plain(item) for key, item in value.items()}
    if not attrs.has(cls):
        return lambda value: [plain(item) for item in value]
    names = tuple(field.name for field in attrs.fields(cls))

    def document(value: Any) -> Doc:
        made: Doc = {}
        for name in names:
            item = getattr(value, name)
            if item is not None:
                made[name] = item if type(item) in _AS_IT_IS else plain(item)
        return made

    return document


def fields_of(value: Any, names: Iterable[str]) -> Doc:
    """The fields of a value that have these names, as JSON can hold them."""
    return {name: plain(getattr(value, name)) for name in names}


@attrs.define(eq=False)
class RenderContext:
    """A snapshot as views read it, and what they show that is in no record."""

    snapshot: Snapshot
    heard: Callable[[int], datetime | None] = attrs.field(default=lambda worker_id: None)
    """The instant of a worker's last heartbeat, ``None`` if there was none since this server started."""
    load: Callable[[int], WorkerLoad | None] = attrs.field(default=lambda worker_id: None)
    """What a worker measured last, ``None`` if it has not reported since this server started."""
    ray: bool = False
    """Whether models that are divided among workers run on Ray where their engine can."""
    silence_allowed: timedelta | None = None
    """How long a worker may be not ready before its instances are placed elsewhere."""

    def allocated(self, worker_id: int) -> Claim:
        """The sum of all claims on a worker, in bytes."""
        claims = self.snapshot.claims_on(worker_id)
        return summed(claim for instance, claim in claims if instance.placement is not None)

    def worker(self, worker_id: int | None) -> Worker | None:
        return self.snapshot.get(Worker, worker_id)


@attrs.frozen(kw_only=True)
class View:
    """One kind of object on the wire: its schema, and the function that makes it."""

    schema: Document
    of: Callable[[Any, RenderContext], Doc]

    def render(self, item: Any, context: RenderContext, faults: Quarantine) -> Doc:
        """The object. Where one of its fields cannot be shown, that field is ``None``, and ``faults`` logs it once."""
        with faults.row((self.schema.name, getattr(item, "id", None))):
            return self.of(item, context)
        return {name: _value_that_fits(item, name, shape) for name, shape in self.schema.fields.items()}


def _value_that_fits(item: Any, name: str, shape: JsonShape) -> Any:
    """The field of that name as JSON, if it has the shape that the schema promises; else ``None``."""

    def read() -> Any:
        value, faults = orjson.loads(dumps(plain(getattr(item, name)))), list[str]()
        shape.read(value, name, faults)
        return None if faults else value

    found = outcome.capture(read)
    return found.value if isinstance(found, outcome.Value) else None
