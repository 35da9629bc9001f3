"""Documents: domain values as JSON and back, and YAML that users wrote, bounded in time and memory."""

from __future__ import annotations

from datetime import date
from typing import TYPE_CHECKING, Any, TypeVar

import attrs
import orjson
from cattrs.errors import BaseValidationError, StructureHandlerNotFoundError
from cattrs.preconf.orjson import make_converter

from gpustack.errors import Invalid
from gpustack.text import is_text, washed

if TYPE_CHECKING:
    import yaml

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

_MOST_MERGED = 10_000
_NUL = b"\\u0000"
"""As it is written in JSON; a text with these very six characters is washed as well, which alters nothing."""
_LONGEST_NUMBER = 64
_LARGEST = 1 << 63
_MOST_VALUES = 1_000_000
# What the library's constructors raise for a value that is not of the type its tag promises.
_UNREADABLE = (ValueError, TypeError, LookupError, AttributeError, OverflowError, RecursionError)


def encode(value: Any) -> bytes:
    """The value as JSON. Characters that cannot be stored (NUL, lone surrogates) are escaped in its texts."""
    document = converter.unstructure(value)
    try:
        made = orjson.dumps(document)
    except orjson.JSONEncodeError:  # a lone surrogate
        return orjson.dumps(washed(document))
    # Most documents have nothing to wash, and looking at each of their texts takes longer than all the rest.
    return orjson.dumps(washed(document)) if _NUL in made else made


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


def read_yaml(raw: bytes) -> Any:
    """The value of a document. Time and memory are bounded by its size. Raises ``Invalid`` with a sentence; blocks."""
    import yaml

    try:
        document = yaml.load(raw, Loader=_loader())
    except (yaml.YAMLError, *_UNREADABLE) as error:
        raise Invalid(f"it is not YAML: {' '.join(str(error).split())[:300]}") from error
    _refuse_unknown_to_json(document)
    return document


def _loader() -> type[yaml.SafeLoader]:
    """The class is made here because the import of PyYAML is slow, and most starts do not need it."""
    import yaml

    class Bounded(yaml.SafeLoader):
        def flatten_mapping(self, node: yaml.MappingNode) -> None:
            """Nested merges grow exponentially: their keys are counted before they are merged."""
            merged = 0
            for key, value in node.value:
                if key.tag == "tag:yaml.org,2002:merge":
                    for part in value.value if isinstance(value, yaml.SequenceNode) else [value]:
                        if isinstance(part, yaml.MappingNode):
                            self.flatten_mapping(part)
                            merged += len(part.value)
                        if merged > _MOST_MERGED:
                            raise yaml.YAMLError(f"more than {_MOST_MERGED} keys are merged into one mapping")
            super().flatten_mapping(node)

        def construct_number(self, node: yaml.ScalarNode) -> Any:
            """A sexagesimal number takes time that grows with the square of its length."""
            if len(str(node.value)) > _LONGEST_NUMBER:
                raise yaml.YAMLError(f"a number has more than {_LONGEST_NUMBER} digits")
            whole = node.tag == "tag:yaml.org,2002:int"
            return self.construct_yaml_int(node) if whole else self.construct_yaml_float(node)

    for kind in ("int", "float"):
        Bounded.add_constructor(f"tag:yaml.org,2002:{kind}", Bounded.construct_number)
    return Bounded


def _refuse_unknown_to_json(document: Any) -> None:
    """Raises ``Invalid`` for what JSON cannot hold. A value that aliases repeat is checked once."""
    waiting, seen = [document], set()
    while waiting:
        value = waiting.pop()
        if isinstance(value, list | dict):
            if id(value) in seen:
                continue
            seen.add(id(value))
            waiting.extend(value if isinstance(value, list) else [*value, *value.values()])
            if len(waiting) > _MOST_VALUES:
                raise Invalid(f"it holds more than {_MOST_VALUES} values")
        elif isinstance(value, str):
            if not is_text(value):
                raise Invalid("it holds half a character")
        elif isinstance(value, int):
            if not -_LARGEST <= value < _LARGEST:
                raise Invalid("it holds a number that is too large")
        elif not isinstance(value, float | date | None):
            raise Invalid("it holds something that is no text, number, list or object")
