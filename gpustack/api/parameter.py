"""A query parameter, as the OpenAPI document shows it."""

from __future__ import annotations

import attrs

from .shape import Shape


@attrs.frozen(kw_only=True)
class Parameter:
    """``many``: it may be repeated, and any of its values may fit."""

    name: str
    shape: Shape
    note: str = ""
    many: bool = False
