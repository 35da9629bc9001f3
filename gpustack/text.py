"""Makes foreign text (of the operating system, engines, libraries) safe to store, send and show."""

from __future__ import annotations

import os
import re
import unicodedata
from collections.abc import Mapping, Sequence
from typing import Any

_SURROGATES = range(0xDC80, 0xDD00)
"""How Python decodes bytes that are not UTF-8 in names (PEP 383, ``surrogateescape``)."""
_CONTROLS = frozenset({"Cc", "Zl", "Zp"})
_BREAKS = frozenset("\n\r\v\f\x1c\x1d\x1e\x85\u2028\u2029")
_LAYOUT = frozenset("\n\r\t")
"""White space that PEM and JSON files contain."""
_BLANKS = "\ufeff\u200b"
"""Invisible, but not white space to Python: they come along when text is copied from web pages."""
_SAID = 200
"""Most characters of an error message that are kept."""

_SECRETS = re.compile(
    r"(?i)(bearer\s+|basic\s+|(?-i:gpustack_[0-9a-z]+_)|://[^\s/:@'\"]*:(?=[^\s/@'\"]+@)"
    r"|(?:token|passw(?:or)?d|secret|api[_-]?key)['\"]?[=:]\s*['\"]?)([^\s,;'\"&@]+)"
)
MASK = "***"
SECRET_NAME = re.compile(r"(?i)(token|passw|secret|api[_-]?key|credential|private[_-]?key)")
"""Names of fields and variables that hold secrets."""
_SECRET_VARIABLE = re.compile(
    r"(?i)(?:(?:^|_)(?:pwd|pass|passphrase|auth|cookies?|pat|dsn|signature)|keys?(?:_id)?)(?:_|$)"
)
"""Names of variables that hold secrets too, as people choose them."""
SECRET_WORD = (
    r"(?:token(?!iz|s)|(?:api|access|auth|bearer|refresh)[_-]?tokens|passw|secret|key|credential|auth)"
)
"""What the name of a flag that a secret follows has in it; a tokenizer and a number of tokens are none."""
# Possessive, and tried only at the beginning of a word: else a text of many "-" would take quadratic time.
SECRET_FLAG = re.compile(
    rf"(?i)((?<![\w-])\w*+-(?>[\w-]*{SECRET_WORD})[\w-]*+)"
    r"(=|\s+)(\"[^\"]*\"|'[^']*'|\S+)"
)
"""A flag with the secret after it."""
_HEADER = re.compile(r"(?is)(header (?:value|name|field)[^'\"]{0,40}b?(['\"])).*\2")
"""HTTP libraries quote a header that they refuse to send, secrets included."""


def printable(text: str | bytes | os.PathLike[str], longest: int | None = None) -> str:
    """One line of characters that JSON, every database, a log and a terminal can hold.

    Control characters, line breaks, text direction marks and lone surrogates are escaped; a byte of a file name that
    is not UTF-8 becomes ``\\xe9``. Text longer than ``longest`` characters is cut and ends with an ellipsis. Printable
    text is returned unchanged. Never raises.
    """
    text = os.fsdecode(text)
    cut = text if longest is None or len(text) <= longest else text[:longest] + "…"
    return cut if cut.isprintable() else "".join(one if one.isprintable() else _escaped(one) for one in cut)


def presentable(text: str) -> str:
    """As ``printable``, but line breaks and tabs stay."""
    if text.isprintable():
        return text
    return "".join(one if one.isprintable() or one in "\n\t" else _escaped(one) for one in text)


def storable(text: str) -> str:
    """User text for a database: only NUL and lone surrogates, which no database stores, are escaped."""
    if is_text(text) and "\0" not in text:
        return text
    return "".join(one if one != "\0" and is_text(one) else _escaped(one) for one in text)


def washed(tree: Any) -> Any:
    """A JSON value with every text in it, keys included, made ``storable``."""
    if isinstance(tree, str):
        return storable(tree)
    if isinstance(tree, dict):
        return {washed(key): washed(value) for key, value in tree.items()}
    return [washed(item) for item in tree] if isinstance(tree, list | tuple) else tree


def is_text(text: str) -> bool:
    """Whether ``text`` has no lone surrogates; file names and JSON can contain them."""
    return text.isascii() or not any("\ud800" <= char <= "\udfff" for char in text)


def _escaped(char: str) -> str:
    if ord(char) in _SURROGATES:
        return f"\\x{ord(char) - 0xDC00:02x}"
    return ascii(char)[1:-1]


def listed(names: Sequence[str], shown: int) -> str:
    """The first of them, and how many more there are: ``a, b, c and 2 more``."""
    left = len(names) - shown
    return ", ".join(names[:shown]) + (f" and {left} more" if left > 0 else "")


def counted(count: int, noun: str) -> str:
    """``1 replica``, ``3 replicas``."""
    return f"{count} {noun}{'' if count == 1 else 's'}"


def redacted(text: str) -> str:
    """``text`` with everything that looks like a secret replaced by ``***``."""
    return _SECRETS.sub(r"\1***", _HEADER.sub(r"\1***\2", text))


_NO_TLS = ("WRONG_VERSION_NUMBER", "PACKET_LENGTH_TOO_LONG")
"""What OpenSSL says of an answer that is no TLS."""


def behind_secret_flags(arguments: Sequence[object]) -> list[bool]:
    """Of each argument of a command whether it is the value of a flag of secrets; some flags take several."""
    found: list[bool] = []
    is_secret, behind = False, 0
    for one in arguments:
        behind += 1
        text = one if isinstance(one, str) else "-"
        found.append(is_secret and not text.startswith("--" if behind == 1 else "-") and text is one)
        if not found[-1]:
            flag = text.startswith("-") and "=" not in text
            is_secret, behind = flag and SECRET_FLAG.match(f"{text} x") is not None, 0
    return found


def masked_arguments(arguments: Sequence[str]) -> list[str]:
    """The arguments of a command without the secrets in them, which stand in one with a flag or after it."""
    return [
        MASK if is_secret else SECRET_FLAG.sub(rf"\1\2{MASK}", redacted(one))
        for one, is_secret in zip(arguments, behind_secret_flags(arguments), strict=True)
    ]


def masked_environment(environment: Mapping[str, str]) -> dict[str, str]:
    """The variables without the secrets in them, which are told by their names or their form."""
    return {
        name: MASK
        if SECRET_NAME.search(name) or _SECRET_VARIABLE.search(name)
        else SECRET_FLAG.sub(rf"\1\2{MASK}", redacted(value))
        for name, value in environment.items()
    }


def said_by(error: BaseException) -> str:
    """The reason of an exception for use in a message: one short line without secrets.

    Of an OSError only the text for its number is used: the caller names the file or address.
    """
    import ssl  # heavy, and seldom needed

    if isinstance(error, ssl.SSLCertVerificationError):
        return f"its certificate is not trusted: {printable(error.verify_message, _SAID)}"
    if isinstance(error, ssl.SSLError) and getattr(error, "reason", None) in _NO_TLS:
        return "it does not speak TLS: its address begins with http://, not https://"
    if isinstance(error, OSError) and not isinstance(error, ssl.SSLError):
        if error.errno is not None and error.errno > 0:
            return os.strerror(error.errno)
        if error.strerror:
            return printable(error.strerror, _SAID)
    return printable(redacted(" ".join(str(error).split())), _SAID) or type(error).__name__


def trimmed(text: str) -> str:
    """``text`` without white space and invisible characters at both ends."""
    while (shorter := text.strip().strip(_BLANKS)) != text:
        text = shorter
    return text


def character_fault(text: str, *, lines: bool = False) -> str | None:
    """Why ``text`` has a character that it must not have, or ``None``; the text itself is not shown. ``lines`` allows
    line breaks and tabs."""
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
