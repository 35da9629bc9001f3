"""Domain values as JSON and back: what servers and workers exchange and what is stored in files."""

from __future__ import annotations

from typing import Any, TypeVar

import attrs
import orjson
from cattrs.errors import BaseValidationError, StructureHandlerNotFoundError
from cattrs.preconf.orjson import make_converter

from gpustack.errors import Invalid
from gpustack.text import washed

T = TypeVar("T")

converter = make_converter(detailed_validation=False)
"""Ignores unknown keys, so that servers and workers of different versions understand each other."""

_UNSHAPELY = (
    ValueError,
    TypeError,
    KeyError,
    AttributeError,
    BaseValidationError,
    StructureHandlerNotFoundError,
)


def encode(value: Any) -> bytes:
    """The value as JSON. Characters that cannot be stored (NUL, lone surrogates) are escaped in its texts."""
    return orjson.dumps(washed(converter.unstructure(value)))


def value_of(document: Any, cls: type[T]) -> T:
    """The value of a parsed JSON document. Raises ``Invalid`` when the document does not fit the class."""
    if attrs.has(cls) and not isinstance(document, dict):  # a list would be read as one without any key
        raise Invalid(f"This is not a {cls.__name__}: it is no object")
    try:
        return converter.structure(document, cls)
    except _UNSHAPELY as error:
        raise Invalid(f"This is not a {cls.__name__}: {error.__class__.__name__}: {error}") from error


def decode(body: bytes, cls: type[T]) -> T:
    """The value in a JSON body. Raises ``Invalid``."""
    try:
        document = orjson.loads(body)
    except orjson.JSONDecodeError as error:
        raise Invalid(f"This is not JSON: {error}") from error
    return value_of(washed(document), cls)
