"""A query parameter, as the OpenAPI document shows it."""

from __future__ import annotations

import attrs

from .shape import JsonShape


@attrs.frozen(kw_only=True)
class QueryParameter:
    """``many``: it may be repeated, and any of its values may fit."""

    name: str
    shape: JsonShape
    note: str = ""
    many: bool = False
