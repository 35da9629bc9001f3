"""Converts records to rows and to JSON, and back."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Mapping
from typing import Any, Generic, TypeVar

import attrs
import orjson
import sqlalchemy as sa
from cattrs.preconf.orjson import make_converter

from gpustack.domain.record import REPORTED, Record
from gpustack.errors import Invalid
from gpustack.text import said_by, storable, washed

from .column import LONGEST_NAME, Name
from .table import ColumnShape, shapes, specs, tables

R = TypeVar("R", bound=Record)
log = logging.getLogger(__name__)

UNREADABLE = (ValueError, TypeError, KeyError, AttributeError, ArithmeticError, RecursionError)
"""What is raised when a row or text is not a record."""

converter = make_converter(detailed_validation=False)
"""Reads what it wrote itself. Unknown keys, which a newer program may have written, are ignored."""

# JSON has no NaN: orjson writes null for it, and that null must be readable at the next start.
converter.register_structure_hook(float, lambda value, _: math.nan if value is None else float(value))


def to_json(record: Record) -> str:
    """The whole record as a JSON document."""
    return _dumped(converter.unstructure(record))


def _dumped(tree: Any) -> str:
    """The JSON of ``tree``. Lone surrogates, which may come in foreign text, are escaped and not an error."""
    try:
        return orjson.dumps(tree).decode()
    except TypeError:  # lone surrogates
        return orjson.dumps(washed(tree)).decode()


def from_json(cls: type[R], text: str) -> R:
    """The record in ``text``; raises one of ``UNREADABLE`` when it is not one, or lacks a field.

    A missing field (of an older program) is not replaced by its default, because the table may hold another value.
    """
    document = orjson.loads(text)
    record = converter.structure(document, cls)
    _whole(document, orjson.loads(to_json(record)))
    return record


def _whole(document: Any, read: Any) -> None:
    """Raises ``KeyError`` when ``document`` lacks a key of what was read from it."""
    if isinstance(document, dict) and isinstance(read, dict):
        for key, value in read.items():
            _whole(document[key], value)
    elif isinstance(document, list) and isinstance(read, list):
        for part, value in zip(document, read, strict=True):
            _whole(part, value)


def _same(value: Any) -> Any:
    return value


def _text(column: str, most: int | None) -> Callable[[str], str]:
    """Encodes text that every database can store; raises ``Invalid`` when it is longer than ``most``."""

    def encoded(value: str) -> str:
        kept = storable(value)
        if most is not None and len(kept) > most:
            raise Invalid(f"{column} has {len(kept)} characters, more than the {most} that can be stored")
        return kept

    return encoded


def _document(column: str, shape: ColumnShape) -> Callable[[Any], str]:
    def encoded(value: Any) -> str:
        try:
            return _dumped(converter.unstructure(value, shape.type))
        except orjson.JSONEncodeError as error:
            raise Invalid(f"{column} holds what cannot be stored: {error}") from error

    return encoded


def _encoder(column: sa.Column[Any], shape: ColumnShape) -> Callable[[Any], Any]:
    if shape.is_enum:
        return lambda value: value.value
    if shape.is_document:
        return _document(column.name, shape)
    if shape.type is str:
        return _text(column.name, LONGEST_NAME if column.type is Name else None)
    return _same


def _decoder(column: str, shape: ColumnShape) -> Callable[[Any], Any]:
    if shape.is_enum:
        return lambda value: shape.type(value)
    if shape.is_document:
        return lambda text: converter.structure(orjson.loads(text), shape.type)

    def plain(value: Any) -> Any:
        # SQLite stores values of any type in any column.
        if not isinstance(value, (int, float) if shape.type is float else shape.type):
            raise TypeError(f"{column} holds {type(value).__name__}, not {shape.type.__name__}")
        return value

    return plain


@attrs.frozen
class Codec(Generic[R]):
    """Converts one record class to rows of its table and back."""

    cls: type[R]
    _encoders: Mapping[str, Callable[[Any], Any]]
    _decoders: Mapping[str, Callable[[Any], Any]]
    _reported: frozenset[str]

    @classmethod
    def of(cls, record_class: type[R]) -> Codec[R]:
        fields = shapes(record_class)
        return cls(
            record_class,
            {name: _encoder(tables[record_class].c[name], shape) for name, shape in fields.items()},
            {name: _decoder(name, shape) for name, shape in fields.items()},
            frozenset(field.name for field in attrs.fields(record_class) if field.metadata.get(REPORTED)),
        )

    def row(self, record: R) -> dict[str, Any]:
        """All columns but the id, which the database assigns. Raises ``Invalid`` for a value that no database can
        store."""
        return {name: self._encoded(record, name) for name in self._encoders if name != "id"}

    def changed(self, before: R, after: R) -> dict[str, Any]:
        """The columns in which the two differ. Raises ``Invalid`` for a value that no database can store."""
        return {
            name: self._encoded(after, name)
            for name in self._encoders
            if getattr(before, name) != getattr(after, name)
        }

    def record(self, row: Mapping[str, Any]) -> R:
        """The record in a row; raises one of ``UNREADABLE`` when the row cannot be read.

        A field that its owner reports again has its default where it cannot be read.
        """
        values = {name: row[name] for name in self._decoders}
        for name, decode in self._decoders.items():
            if values[name] is None:
                continue
            try:
                values[name] = decode(values[name])
            except UNREADABLE as error:
                if name not in self._reported:
                    raise
                log.warning(
                    "A column cannot be read, and is told anew by its owner: column=%s row=%s reason=%s",
                    f"{specs[self.cls].name}.{name}",
                    row["id"],
                    said_by(error),
                )
                del values[name]
        return self.cls(**values)

    def _encoded(self, record: R, name: str) -> Any:
        value = getattr(record, name)
        return None if value is None else self._encoders[name](value)


_CODECS: Mapping[type[Record], Codec[Any]] = {cls: Codec.of(cls) for cls in specs}


def codec(cls: type[R]) -> Codec[R]:
    """The codec of a record class."""
    return _CODECS[cls]
