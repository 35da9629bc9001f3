"""Values as the audit trail may hold them: secrets masked, sizes bounded, control characters escaped."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from datetime import datetime
from itertools import pairwise
from typing import Any

from gpustack.text import MASK, SECRET_FLAG, SECRET_NAME, behind_secret_flags, printable, redacted

from .shape import Array, Dictionary, Document, JsonShape, Nullable, Text
from .view import plain

LONGEST = 256
"""Characters of a text that are kept."""
_MOST = 50
"""Items of a list or object that are kept."""

_LIKELY_NAME = re.compile(r"(?i)(key|token|pass|pwd|secret|cred|auth|cookie)")


def holds_secret(value: Any, name: str = "") -> bool:
    """Whether a value, or a part of it, is likely a secret: by its ``name``, a flag like ``--api-key`` before it, or
    its form. Rather too often than too seldom."""
    if isinstance(value, Mapping):
        return any(holds_secret(item, str(key)) for key, item in value.items())
    if isinstance(value, list | tuple):
        flags = [
            f"{one} {after}" for one, after in pairwise(value) if isinstance(one, str) and one[:1] == "-"
        ]
        return any(holds_secret(item) for item in value) or any(map(SECRET_FLAG.search, flags))
    if not isinstance(value, str) or not value:
        return False
    return bool(_LIKELY_NAME.search(name) or SECRET_FLAG.search(value)) or redacted(value) != value


def legible(text: str, longest: int = LONGEST) -> str:
    """A text from outside, cut to ``longest`` characters, with escapes for what does not print."""
    return printable(text, longest)


def masked(value: Any, shape: JsonShape | None = None, name: str = "") -> Any:
    """The value as the trail may hold it. Secret is what its shape says, and what has a name like ``token``."""
    if isinstance(shape, Nullable):
        return None if value is None else masked(value, shape.of, name)
    if value is None or isinstance(value, bool | int | float):
        return value
    if (isinstance(shape, Text) and shape.secret) or SECRET_NAME.search(name):
        return MASK
    if isinstance(value, Mapping):
        return _object(value, shape)
    if isinstance(value, str):
        return legible(SECRET_FLAG.sub(rf"\1\2{MASK}", redacted(value)))
    if isinstance(value, datetime):
        return value.isoformat()
    if isinstance(value, Sequence):
        return _list(value, shape)
    return masked(plain(value), None, name)


def _object(value: Mapping[Any, Any], shape: JsonShape | None) -> dict[str, Any]:
    of = shape.fields if isinstance(shape, Document) else {}
    inner = shape.of if isinstance(shape, Dictionary) else None
    made = {
        legible(str(key)): masked(item, of.get(str(key), inner), str(key))
        for key, item in list(value.items())[:_MOST]
    }
    return {**made, "…": f"{len(value) - _MOST} more"} if len(value) > _MOST else made


def _list(value: Sequence[Any], shape: JsonShape | None) -> list[Any]:
    """In arguments, what follows ``--api-key`` is as secret as what follows in ``--api-key=``."""
    inner = shape.of if isinstance(shape, Array) else None
    kept = value[:_MOST]
    made = [
        MASK if is_secret else masked(item, inner)
        for item, is_secret in zip(kept, behind_secret_flags(kept), strict=True)
    ]
    return [*made, f"… {len(value) - _MOST} more"] if len(value) > _MOST else made
