"""Turns text of the operating system, of engines and of libraries into text that can be stored, sent and shown."""

from __future__ import annotations

import os

_SURROGATES = range(0xDC80, 0xDD00)
"""How Python holds bytes of names that are no UTF-8 (PEP 383, ``surrogateescape``)."""


def printable(text: str | bytes | os.PathLike[str], longest: int | None = None) -> str:
    """One line of characters that JSON, every database, a log and a terminal can hold.

    What does not print (control characters, line breaks, text direction marks, lone surrogates) is written out as
    an escape; a byte of a file name that is no UTF-8 as ``\\xe9``. More than ``longest`` characters of the text are
    cut, with an ellipsis in their place. Text that prints comes back as it is. Never raises.
    """
    text = os.fsdecode(text)
    cut = text if longest is None or len(text) <= longest else text[:longest] + "…"
    return cut if cut.isprintable() else "".join(one if one.isprintable() else _escaped(one) for one in cut)


def _escaped(char: str) -> str:
    if ord(char) in _SURROGATES:
        return f"\\x{ord(char) - 0xDC00:02x}"
    return ascii(char)[1:-1]
