"""Turns text of the operating system, of engines and of libraries into text that can be stored, sent and shown."""

from __future__ import annotations

import os
import re
import unicodedata
from typing import Any

_SURROGATES = range(0xDC80, 0xDD00)
"""How Python holds bytes of names that are no UTF-8 (PEP 383, ``surrogateescape``)."""
_CONTROLS = frozenset({"Cc", "Zl", "Zp"})
_BREAKS = frozenset("\n\r\v\f\x1c\x1d\x1e\x85\u2028\u2029")
_LAYOUT = frozenset("\n\r\t")
"""What the lines of PEM and JSON are made of."""
_BLANKS = "\ufeff\u200b"
"""No white space to Python, invisible all the same: copied along from web pages and files."""
_SAID = 200
"""Characters of what a library says of a fault."""

_SECRETS = re.compile(
    r"(?i)(bearer\s+|basic\s+|(?-i:gpustack_[0-9a-z]+_)|://[^\s/:@'\"]*:(?=[^\s/@'\"]+@)"
    r"|(?:token|passw(?:or)?d|secret|api[_-]?key)['\"]?[=:]\s*['\"]?)([^\s,;'\"&@]+)"
)
_HEADER = re.compile(r"(?is)(header (?:value|name|field)[^'\"]{0,40}b?(['\"])).*\2")
"""HTTP libraries quote a header that they will not send, whatever stands in it."""


def printable(text: str | bytes | os.PathLike[str], longest: int | None = None) -> str:
    """One line of characters that JSON, every database, a log and a terminal can hold.

    What does not print (control characters, line breaks, text direction marks, lone surrogates) is written out as
    an escape; a byte of a file name that is no UTF-8 as ``\\xe9``. More than ``longest`` characters of the text are
    cut, with an ellipsis in their place. Text that prints comes back as it is. Never raises.
    """
    text = os.fsdecode(text)
    cut = text if longest is None or len(text) <= longest else text[:longest] + "…"
    return cut if cut.isprintable() else "".join(one if one.isprintable() else _escaped(one) for one in cut)


def presentable(text: str) -> str:
    """The same of text that may have several lines: line breaks and tabs stay as they are."""
    if text.isprintable():
        return text
    return "".join(one if one.isprintable() or one in "\n\t" else _escaped(one) for one in text)


def storable(text: str) -> str:
    """The same of text that is somebody's own: nothing but NUL and halves of characters, which no database takes."""
    if is_text(text) and "\0" not in text:
        return text
    return "".join(one if one != "\0" and is_text(one) else _escaped(one) for one in text)


def washed(tree: Any) -> Any:
    """A value as JSON knows it, every text in it made storable; keys too."""
    if isinstance(tree, str):
        return storable(tree)
    if isinstance(tree, dict):
        return {washed(key): washed(value) for key, value in tree.items()}
    return [washed(item) for item in tree] if isinstance(tree, list | tuple) else tree


def is_text(text: str) -> bool:
    """Whether ``text`` is made of whole characters: names of files, and JSON, can hold others."""
    return text.isascii() or not any("\ud800" <= char <= "\udfff" for char in text)


def _escaped(char: str) -> str:
    if ord(char) in _SURROGATES:
        return f"\\x{ord(char) - 0xDC00:02x}"
    return ascii(char)[1:-1]


def redacted(text: str) -> str:
    """``text`` with everything that looks like a secret replaced."""
    return _SECRETS.sub(r"\1***", _HEADER.sub(r"\1***\2", text))


def said_by(error: BaseException) -> str:
    """What the system or a library says of a fault, for a sentence of ours: one short line, no secret in it.

    A fault of the system is told by its name alone; which file or address it was, the caller knows better.
    """
    import ssl  # heavy, and seldom needed

    if isinstance(error, ssl.SSLCertVerificationError):
        return f"its certificate is not trusted: {printable(error.verify_message, _SAID)}"
    if isinstance(error, OSError) and not isinstance(error, ssl.SSLError):
        if error.errno is not None and error.errno > 0:
            return os.strerror(error.errno)
        if error.strerror:
            return printable(error.strerror, _SAID)
    return printable(redacted(" ".join(str(error).split())), _SAID) or type(error).__name__


def trimmed(text: str) -> str:
    """``text`` without white space, and what looks like it, at both ends."""
    while (shorter := text.strip().strip(_BLANKS)) != text:
        text = shorter
    return text


def character_fault(text: str, *, lines: bool = False) -> str | None:
    """Which character ``text`` must not hold, in words that show nothing else of it. ``lines`` may be several."""
    if text.isprintable():
        return None
    for char in text:
        kind = unicodedata.category(char)
        if kind == "Cs":
            return "must be UTF-8 text"
        if kind in _CONTROLS and not (lines and char in _LAYOUT):
            breaks = char in _BREAKS and not lines
            what = "a line break" if breaks else f"the control character U+{ord(char):04X}"
            return f"must not hold {what}"
    return None
