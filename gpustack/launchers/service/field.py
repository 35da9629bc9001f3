"""Fields of a request, as JSON or as texts of a form, read with one sentence for each that is wrong."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

from .call import refuse_field

_TRUE, _FALSE = ("true", "1", "yes"), ("false", "0", "no", "")


def text(fields: Mapping[str, Any], name: str, *, most: int, default: str | None = None) -> str | None:
    """A text of at most ``most`` characters."""
    value = fields.get(name)
    if value is None:
        return default
    if not isinstance(value, str):
        refuse_field(name, "must be a text")
    if len(value) > most:
        refuse_field(name, f"has {len(value)} characters, and may have {most}")
    if any(0xD800 <= ord(character) <= 0xDFFF for character in value):
        refuse_field(name, "is no valid Unicode text")
    return value


def choice(fields: Mapping[str, Any], name: str, among: Collection[str], default: str) -> str:
    """One of a few words."""
    value = fields.get(name)
    if value is None or value == "":
        return default
    if not isinstance(value, str) or value not in among:
        refuse_field(name, f"must be one of {', '.join(among)}")
    return value


def number(
    fields: Mapping[str, Any], name: str, *, least: float, most: float, default: float | None = None
) -> float | None:
    """A number within bounds."""
    value = fields.get(name)
    if value is None or value == "":
        return default
    try:
        found = float(value) if not isinstance(value, bool) else float("nan")
    except (TypeError, ValueError, OverflowError):
        found = float("nan")
    if not least <= found <= most:
        refuse_field(name, f"must be a number from {least:g} to {most:g}")
    return found


def whole(
    fields: Mapping[str, Any], name: str, *, least: int, most: int, default: int | None = None
) -> int | None:
    """A whole number within bounds."""
    value = number(fields, name, least=least, most=most)
    if value is None:
        return default
    if value != int(value):
        refuse_field(name, "must be a whole number")
    return int(fields[name]) if isinstance(fields[name], int) else int(value)


def flag(fields: Mapping[str, Any], name: str, default: bool = False) -> bool:
    """True or false, in JSON or as a word."""
    value = fields.get(name)
    if value is None or isinstance(value, bool):
        return default if value is None else value
    word = str(value).lower()
    if word not in _TRUE + _FALSE:
        refuse_field(name, "must be true or false")
    return word in _TRUE
