"""Shapes of JSON: each reads strictly, naming every fault, and describes itself for OpenAPI."""

from __future__ import annotations

import types
import typing
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from enum import StrEnum
from typing import Any, Protocol

import attrs

Schema = dict[str, Any]
Parts = dict[str, Schema]
"""Named schemas met on the way, to stand once in ``components``."""

LARGEST = 2**63 - 1
"""The largest whole number every database of ours can hold."""


class JsonShape(Protocol):
    """Reads a JSON value into one of ours. Faults are appended as ``<where>: <what is wrong>``, and then the value
    returned means nothing."""

    def read(self, value: Any, at: str, faults: list[str]) -> Any: ...

    def schema(self, parts: Parts) -> Schema: ...


@attrs.frozen(kw_only=True)
class Text:
    """Text of bounded length, without NUL (no database takes it). ``shown`` beside others it must be one line without
    what steers a terminal or turns the direction of what follows."""

    shortest: int = 0
    longest: int = 65536
    secret: bool = False
    shown: bool = False

    def read(self, value: Any, at: str, faults: list[str]) -> Any:
        if not isinstance(value, str):
            faults.append(f"{at}: must be text")
        elif "\x00" in value:
            faults.append(f"{at}: must not contain NUL characters")
        elif self.shown and not value.isprintable():
            faults.append(f"{at}: must be one line of characters that can be shown")
        elif len(value) < self.shortest:
            faults.append(f"{at}: must not be empty")
        elif len(value) > self.longest:
            faults.append(f"{at}: must have at most {self.longest} characters")
        return value

    def schema(self, parts: Parts) -> Schema:
        made: Schema = {"type": "string"}
        if self.shortest:
            made["minLength"] = self.shortest
        if self.secret:
            made["format"] = "password"
        return made


@attrs.frozen(kw_only=True)
class Integer:
    """A whole number within bounds; ``true`` is none."""

    least: int = -LARGEST - 1
    most: int = LARGEST

    def read(self, value: Any, at: str, faults: list[str]) -> Any:
        if not isinstance(value, int) or isinstance(value, bool):
            faults.append(f"{at}: must be a whole number")
        elif not self.least <= value <= self.most:
            faults.append(f"{at}: must be {self._bounds()}")
        return value

    def _bounds(self) -> str:
        if self.most == LARGEST:
            return f"at least {self.least}"
        return f"from {self.least} to {self.most}"

    def schema(self, parts: Parts) -> Schema:
        made: Schema = {"type": "integer"}
        if self.least > -LARGEST - 1:
            made["minimum"] = self.least
        if self.most < LARGEST:
            made["maximum"] = self.most
        return made


@attrs.frozen
class Number:
    """Any finite number."""

    def read(self, value: Any, at: str, faults: list[str]) -> Any:
        if not isinstance(value, int | float) or isinstance(value, bool):
            faults.append(f"{at}: must be a number")
            return value
        return float(value)

    def schema(self, parts: Parts) -> Schema:
        return {"type": "number"}


@attrs.frozen
class Boolean:
    """``true`` or ``false``, nothing that merely looks like them."""

    def read(self, value: Any, at: str, faults: list[str]) -> Any:
        if not isinstance(value, bool):
            faults.append(f"{at}: must be true or false")
        return value

    def schema(self, parts: Parts) -> Schema:
        return {"type": "boolean"}


@attrs.frozen
class Instant:
    """An ISO 8601 instant with its offset, read into UTC."""

    def read(self, value: Any, at: str, faults: list[str]) -> Any:
        try:
            read = datetime.fromisoformat(value)
            if read.tzinfo is not None:
                return read.astimezone(UTC)  # OverflowError at the edges of the calendar
        except (TypeError, ValueError, OverflowError):
            pass
        faults.append(f"{at}: must be an instant with its offset, like 2026-01-31T08:00:00Z")
        return value

    def schema(self, parts: Parts) -> Schema:
        return {"type": "string", "format": "date-time"}


@attrs.frozen
class Choice:
    """One of the words of an enumeration."""

    of: type[StrEnum]

    def read(self, value: Any, at: str, faults: list[str]) -> Any:
        words = [member.value for member in self.of]
        if not isinstance(value, str) or value not in words:
            faults.append(f"{at}: must be one of {', '.join(words)}")
            return value
        return self.of(value)

    def schema(self, parts: Parts) -> Schema:
        return {"type": "string", "enum": [member.value for member in self.of]}


@attrs.frozen
class Array:
    """A list, read into a tuple."""

    of: JsonShape
    most: int = 10_000

    def read(self, value: Any, at: str, faults: list[str]) -> Any:
        if not isinstance(value, list):
            faults.append(f"{at}: must be a list")
            return value
        if len(value) > self.most:
            faults.append(f"{at}: must have at most {self.most} items")
            return value
        return tuple(self.of.read(item, f"{at}[{n}]", faults) for n, item in enumerate(value))

    def schema(self, parts: Parts) -> Schema:
        return {"type": "array", "items": self.of.schema(parts)}


@attrs.frozen
class Dictionary:
    """An object used as a mapping. JSON knows only text as keys: whole numbers are read back from it."""

    of: JsonShape
    whole_keys: bool = False

    def read(self, value: Any, at: str, faults: list[str]) -> Any:
        if not isinstance(value, dict):
            faults.append(f"{at}: must be an object")
            return value
        made: dict[Any, Any] = {}
        for key, item in value.items():
            if self.whole_keys and not (key.isascii() and key.isdigit() and len(key) < 10):
                faults.append(f"{at}: key {key!r} must be a whole number")
                continue
            if "\x00" in key:
                faults.append(f"{at}: key {key!r} must not contain NUL characters")
                continue
            made[int(key) if self.whole_keys else key] = self.of.read(item, f"{at}.{key}", faults)
        return made

    def schema(self, parts: Parts) -> Schema:
        return {"type": "object", "additionalProperties": self.of.schema(parts)}


@attrs.frozen
class Nullable:
    """The shape, or ``null``."""

    of: JsonShape
    otherwise: Any = None
    """What ``null`` is read as."""

    def read(self, value: Any, at: str, faults: list[str]) -> Any:
        return self.otherwise if value is None else self.of.read(value, at, faults)

    def schema(self, parts: Parts) -> Schema:
        inner = self.of.schema(parts)
        if isinstance(inner.get("type"), str) and "enum" not in inner:
            return {**inner, "type": [inner["type"], "null"]}
        return {"anyOf": [inner, {"type": "null"}]}


@attrs.frozen
class AnyJson:
    """Any JSON."""

    def read(self, value: Any, at: str, faults: list[str]) -> Any:
        return value

    def schema(self, parts: Parts) -> Schema:
        return {}


@attrs.frozen
class AttrsObject:
    """An attrs class: unknown fields are ignored (a newer peer may send more), missing ones take their default."""

    cls: type[Any]

    def read(self, value: Any, at: str, faults: list[str]) -> Any:
        if not isinstance(value, dict):
            faults.append(f"{at}: must be an object")
            return value
        before = len(faults)
        made: dict[str, Any] = {}
        for name, shape, required in _fields(self.cls):
            where = f"{at}.{name}" if at else name
            if name in value:
                made[name] = shape.read(value[name], where, faults)
            elif required:
                faults.append(f"{where}: is missing")
        return None if len(faults) > before else self.cls(**made)

    def schema(self, parts: Parts) -> Schema:
        name = self.cls.__name__
        if name not in parts:
            parts[name] = {}  # it may contain itself
            fields = _fields(self.cls)
            parts[name] = _object({name: shape for name, shape, _ in fields}, (), parts, _sentence(self.cls))
        return {"$ref": f"#/components/schemas/{name}"}


@attrs.frozen(kw_only=True)
class Document:
    """An object read field by field into a dict that holds only what was sent; unknown fields are ignored."""

    name: str
    fields: Mapping[str, JsonShape]
    required: tuple[str, ...] = ()
    note: str = ""

    def read(self, value: Any, at: str, faults: list[str]) -> Any:
        if not isinstance(value, dict):
            faults.append(f"{at or 'body'}: must be an object")
            return {}
        faults.extend(f"{name}: is missing" for name in self.required if name not in value)
        return {
            name: shape.read(value[name], name, faults)
            for name, shape in self.fields.items()
            if name in value
        }

    def schema(self, parts: Parts) -> Schema:
        if self.name not in parts:
            parts[self.name] = {}
            parts[self.name] = _object(self.fields, self.required, parts, self.note)
        return {"$ref": f"#/components/schemas/{self.name}"}


def _object(fields: Mapping[str, JsonShape], required: tuple[str, ...], parts: Parts, note: str) -> Schema:
    made: Schema = {
        "type": "object",
        "properties": {name: shape.schema(parts) for name, shape in fields.items()},
    }
    if required:
        made["required"] = list(required)
    if note:
        made["description"] = note
    return made


def _sentence(cls: type[Any]) -> str:
    return (cls.__doc__ or "").strip().split("\n\n")[0].replace("\n    ", " ")


_known: dict[type[Any], tuple[tuple[str, JsonShape, bool], ...]] = {}


def _fields(cls: type[Any]) -> tuple[tuple[str, JsonShape, bool], ...]:
    """Name, shape, and whether it must be sent, of each field of an attrs class; worked out once a class."""
    if cls not in _known:
        hints = typing.get_type_hints(cls)
        _known[cls] = tuple(
            (field.name, shape_of(hints[field.name]), field.default is attrs.NOTHING)
            for field in attrs.fields(cls)
        )
    return _known[cls]


_PLAIN: Mapping[Any, Callable[[], JsonShape]] = {
    str: Text,
    int: Integer,
    float: Number,
    bool: Boolean,
    datetime: Instant,
    Any: AnyJson,
    object: AnyJson,
}


def shape_of(hint: Any) -> JsonShape:
    """The shape of a type as our values declare them. Raises ``TypeError`` for a type that JSON has no word for."""
    if hint in _PLAIN:
        return _PLAIN[hint]()
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if origin in (types.UnionType, typing.Union):
        inner = [argument for argument in arguments if argument is not type(None)]
        if len(inner) == 1 and len(arguments) == 2:
            return Nullable(shape_of(inner[0]))
    if origin is tuple and len(arguments) == 2 and arguments[1] is Ellipsis:
        return Array(shape_of(arguments[0]))
    if origin in (dict, Mapping):
        return Dictionary(shape_of(arguments[1]), whole_keys=arguments[0] is int)
    if isinstance(hint, type) and issubclass(hint, StrEnum):
        return Choice(hint)
    if isinstance(hint, type) and attrs.has(hint):
        return AttrsObject(hint)
    raise TypeError(f"JSON has no shape for {hint!r}")
