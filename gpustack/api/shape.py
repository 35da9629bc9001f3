"""JSON shapes: each reads a value strictly, naming every fault, and describes itself for OpenAPI."""

from __future__ import annotations

import types
import typing
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from enum import StrEnum
from typing import Any, Protocol

import attrs

from gpustack.domain.access import Limits

Schema = dict[str, Any]
Components = dict[str, Schema]
"""Named schemas collected while a document is made: each stands once in its ``components``."""

LARGEST = 2**63 - 1
"""The largest integer that every supported database can hold."""


class JsonShape(Protocol):
    """What a JSON value must be."""

    def read(self, value: Any, at: str, faults: list[str]) -> Any:
        """The value as the program has it. Appends ``<at>: <what is wrong>`` to ``faults`` for everything that is
        wrong; then the result must not be used."""
        ...

    def schema(self, components: Components) -> Schema:
        """Its JSON Schema; named parts are added to ``components`` and referred to."""
        ...


@attrs.frozen(kw_only=True)
class Text:
    """Text of bounded length, without NUL (PostgreSQL does not store it). With ``one_line`` it must be printable: no
    line breaks, terminal controls or marks that change the direction of text."""

    shortest: int = 0
    longest: int = 65536
    secret: bool = False
    one_line: bool = False

    def read(self, value: Any, at: str, faults: list[str]) -> Any:
        if not isinstance(value, str):
            faults.append(f"{at}: must be text")
        elif "\x00" in value:
            faults.append(f"{at}: must not contain NUL characters")
        elif self.one_line and not value.isprintable():
            faults.append(f"{at}: must be one line of characters that can be shown")
        elif len(value) < self.shortest:
            faults.append(f"{at}: must not be empty")
        elif len(value) > self.longest:
            faults.append(f"{at}: must have at most {self.longest} characters")
        return value

    def schema(self, components: Components) -> Schema:
        made: Schema = {"type": "string"}
        if self.shortest:
            made["minLength"] = self.shortest
        if self.secret:
            made["format"] = "password"
        return made


@attrs.frozen(kw_only=True)
class Integer:
    """A whole number within bounds; ``true`` is not one, as it is in Python."""

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

    def schema(self, components: Components) -> Schema:
        made: Schema = {"type": "integer"}
        if self.least > -LARGEST - 1:
            made["minimum"] = self.least
        if self.most < LARGEST:
            made["maximum"] = self.most
        return made


@attrs.frozen
class Number:
    """Any number that JSON can hold."""

    def read(self, value: Any, at: str, faults: list[str]) -> Any:
        if not isinstance(value, int | float) or isinstance(value, bool):
            faults.append(f"{at}: must be a number")
            return value
        return float(value)

    def schema(self, components: Components) -> Schema:
        return {"type": "number"}


@attrs.frozen
class Boolean:
    """``true`` or ``false``: not 0, 1 or a word."""

    def read(self, value: Any, at: str, faults: list[str]) -> Any:
        if not isinstance(value, bool):
            faults.append(f"{at}: must be true or false")
        return value

    def schema(self, components: Components) -> Schema:
        return {"type": "boolean"}


@attrs.frozen
class Instant:
    """An ISO 8601 instant with its UTC offset, read as an aware datetime in UTC."""

    def read(self, value: Any, at: str, faults: list[str]) -> Any:
        try:
            read = datetime.fromisoformat(value)
            if read.tzinfo is not None:
                return read.astimezone(UTC)  # OverflowError at the edges of the calendar
        except (TypeError, ValueError, OverflowError):
            pass
        faults.append(f"{at}: must be an instant with its offset, like 2026-01-31T08:00:00Z")
        return value

    def schema(self, components: Components) -> Schema:
        return {"type": "string", "format": "date-time"}


@attrs.frozen
class Choice:
    """A value of an enumeration."""

    of: type[StrEnum]

    def read(self, value: Any, at: str, faults: list[str]) -> Any:
        words = [member.value for member in self.of]
        if not isinstance(value, str) or value not in words:
            faults.append(f"{at}: must be one of {', '.join(words)}")
            return value
        return self.of(value)

    def schema(self, components: Components) -> Schema:
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

    def schema(self, components: Components) -> Schema:
        return {"type": "array", "items": self.of.schema(components)}


@attrs.frozen
class Dictionary:
    """An object used as a mapping, with any keys. ``whole_keys``: they are integers, which JSON writes as text."""

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

    def schema(self, components: Components) -> Schema:
        return {"type": "object", "additionalProperties": self.of.schema(components)}


@attrs.frozen
class Nullable:
    """The shape, or ``null``."""

    of: JsonShape
    otherwise: Any = None
    """The result of reading ``null``."""

    def read(self, value: Any, at: str, faults: list[str]) -> Any:
        return self.otherwise if value is None else self.of.read(value, at, faults)

    def schema(self, components: Components) -> Schema:
        inner = self.of.schema(components)
        if isinstance(inner.get("type"), str) and "enum" not in inner:
            return {**inner, "type": [inner["type"], "null"]}
        return {"anyOf": [inner, {"type": "null"}]}


@attrs.frozen
class AnyJson:
    """Any JSON."""

    def read(self, value: Any, at: str, faults: list[str]) -> Any:
        return value

    def schema(self, components: Components) -> Schema:
        return {}


@attrs.frozen
class AttrsObject:
    """An object read into an attrs class. Unknown fields are ignored (a newer peer may send more), missing ones take
    their default. The name of its schema is that of the class: to rename the class is to change the
    published document."""

    cls: type[Any]
    strict: bool = False
    """Unknown fields are faults, in objects within it too: for what users write."""

    def read(self, value: Any, at: str, faults: list[str]) -> Any:
        if not isinstance(value, dict):
            faults.append(f"{at}: must be an object")
            return value
        before = len(faults)
        made: dict[str, Any] = {}
        fields = _fields(self.cls, strict=self.strict)
        if self.strict:
            known = {name for name, _, _ in fields}
            faults.extend(
                f"{at}.{name}: is not known here; there are {', '.join(sorted(known))}"
                for name in sorted(value.keys() - known)
            )
        for name, shape, required in fields:
            where = f"{at}.{name}" if at else name
            if name in value:
                made[name] = shape.read(value[name], where, faults)
            elif required:
                faults.append(f"{where}: is missing")
        return None if len(faults) > before else self.cls(**made)

    def schema(self, components: Components) -> Schema:
        name = self.cls.__name__
        if name not in components:
            components[name] = {}  # before its fields are described: it may contain itself
            fields = {field: shape for field, shape, _ in _fields(self.cls, strict=self.strict)}
            components[name] = _object(fields, (), components, _sentence(self.cls))
        return {"$ref": f"#/components/schemas/{name}"}


@attrs.frozen(kw_only=True)
class Document:
    """An object read into a dict of the fields that were sent; unknown fields are ignored."""

    name: str
    fields: Mapping[str, JsonShape]
    required: tuple[str, ...] = ()
    note: str = ""
    strict: bool = False
    """Unknown fields are faults: for what would do more than was meant without a field that is misspelt."""

    def read(self, value: Any, at: str, faults: list[str]) -> Any:
        if not isinstance(value, dict):
            faults.append(f"{at or 'body'}: must be an object")
            return {}
        inside = f"{at}." if at else ""
        faults.extend(f"{inside}{name}: is missing" for name in self.required if name not in value)
        if self.strict:
            known = ", ".join(self.fields)
            unknown = (name for name in value if name not in self.fields)
            faults.extend(f"{inside}{name}: is not known here; there are {known}" for name in unknown)
        return {
            name: shape.read(value[name], f"{inside}{name}", faults)
            for name, shape in self.fields.items()
            if name in value
        }

    def schema(self, components: Components) -> Schema:
        if self.name not in components:
            components[self.name] = {}
            made = _object(self.fields, self.required, components, self.note)
            components[self.name] = {**made, "additionalProperties": False} if self.strict else made
        return {"$ref": f"#/components/schemas/{self.name}"}


def _object(
    fields: Mapping[str, JsonShape], required: tuple[str, ...], components: Components, note: str
) -> Schema:
    made: Schema = {
        "type": "object",
        "properties": {name: shape.schema(components) for name, shape in fields.items()},
    }
    if required:
        made["required"] = list(required)
    if note:
        made["description"] = note
    return made


def _sentence(cls: type[Any]) -> str:
    return (cls.__doc__ or "").strip().split("\n\n")[0].replace("\n    ", " ")


_known: dict[tuple[type[Any], bool], tuple[tuple[str, JsonShape, bool], ...]] = {}


def _fields(cls: type[Any], *, strict: bool) -> tuple[tuple[str, JsonShape, bool], ...]:
    """Of each field of an attrs class: name, shape, whether it must be sent. Worked out once for a class."""
    if (cls, strict) not in _known:
        hints = typing.get_type_hints(cls)
        _known[cls, strict] = tuple(
            (field.name, shape_of(hints[field.name], strict=strict), field.default is attrs.NOTHING)
            for field in attrs.fields(cls)
        )
    return _known[cls, strict]


_PLAIN: Mapping[Any, Callable[[], JsonShape]] = {
    str: Text,
    int: Integer,
    float: Number,
    bool: Boolean,
    datetime: Instant,
    Any: AnyJson,
    object: AnyJson,
}


def shape_of(hint: Any, *, strict: bool = False) -> JsonShape:
    """The shape of a type annotation; ``strict`` is that of ``AttrsObject``. Raises ``TypeError`` for a type that has
    none."""
    if hint in _PLAIN:
        return _PLAIN[hint]()
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if origin in (types.UnionType, typing.Union):
        inner = [argument for argument in arguments if argument is not type(None)]
        if len(inner) == 1 and len(arguments) == 2:
            return Nullable(shape_of(inner[0], strict=strict))
    if origin is tuple and len(arguments) == 2 and arguments[1] is Ellipsis:
        return Array(shape_of(arguments[0], strict=strict))
    if origin in (dict, Mapping):
        return Dictionary(shape_of(arguments[1], strict=strict), whole_keys=arguments[0] is int)
    if isinstance(hint, type) and issubclass(hint, StrEnum):
        return Choice(hint)
    if isinstance(hint, type) and attrs.has(hint):
        return AttrsObject(hint, strict)
    raise TypeError(f"JSON has no shape for {hint!r}")


_LIMIT_NAMES = tuple(field.name for field in attrs.fields(Limits))
_LIMIT = Nullable(Integer(least=0))


@attrs.frozen
class LimitsObject:
    """Limits of use as clients write them. Unknown names are refused, unlike elsewhere: a limit that is misspelt would
    silently not hold."""

    def read(self, value: Any, at: str, faults: list[str]) -> Any:
        if not isinstance(value, dict):
            faults.append(f"{at}: must be an object")
            return value
        before = len(faults)
        faults += [
            f"{at}.{name}: is not known; limits are {', '.join(_LIMIT_NAMES)}"
            for name in value.keys() - {*_LIMIT_NAMES}
        ]
        made = {
            name: _LIMIT.read(value[name], f"{at}.{name}", faults) for name in _LIMIT_NAMES if name in value
        }
        return None if len(faults) > before else Limits(**made)

    def schema(self, components: Components) -> Schema:
        components["LimitsGiven"] = {
            "type": "object",
            "properties": {name: _LIMIT.schema(components) for name in _LIMIT_NAMES},
            "additionalProperties": False,
            "description": "How much may be used; null or left out: no limit. Days and months are those of UTC.",
        }
        return {"$ref": "#/components/schemas/LimitsGiven"}


LIMITS: JsonShape = Nullable(LimitsObject())
"""A field ``limits``. All limits are replaced; ``null`` removes them."""


@attrs.frozen(kw_only=True)
class QueryParameter:
    """A parameter of the query string, as the OpenAPI document shows it. ``many``: it may be repeated."""

    name: str
    shape: JsonShape
    note: str = ""
    many: bool = False
