"""Limits of use as clients write them: whole numbers or null by name, and no name that is none."""

from __future__ import annotations

from typing import Any

import attrs

from gpustack.domain.access import Limits

from .shape import Integer, JsonShape, Nullable, Parts, Schema

_NAMES = tuple(field.name for field in attrs.fields(Limits))
_NUMBER = Nullable(Integer(least=0))


@attrs.frozen
class LimitsObject:
    """Read into a ``Limits``. A limit that is misspelt would not hold: unknown names are refused, unlike elsewhere."""

    def read(self, value: Any, at: str, faults: list[str]) -> Any:
        if not isinstance(value, dict):
            faults.append(f"{at}: must be an object")
            return value
        before = len(faults)
        faults += [
            f"{at}.{name}: is not known; limits are {', '.join(_NAMES)}" for name in value.keys() - {*_NAMES}
        ]
        made = {name: _NUMBER.read(value[name], f"{at}.{name}", faults) for name in _NAMES if name in value}
        return None if len(faults) > before else Limits(**made)

    def schema(self, parts: Parts) -> Schema:
        parts["LimitsGiven"] = {
            "type": "object",
            "properties": {name: _NUMBER.schema(parts) for name in _NAMES},
            "additionalProperties": False,
            "description": "How much may be used; null or left out: no limit. Days and months are those of UTC.",
        }
        return {"$ref": "#/components/schemas/LimitsGiven"}


LIMITS: JsonShape = Nullable(LimitsObject())
"""What a field ``limits`` may hold. All limits are replaced; ``null`` takes them away."""
