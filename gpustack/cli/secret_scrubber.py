"""Takes secrets out of what is given to others: those that are known word by word, and all that looks like one."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from typing import Any
from urllib.parse import quote, unquote, urlsplit

import attrs

from gpustack.text import MASK, SECRET_WORD, behind_secret_flags, redacted

_SHORTEST, _SHORTEST_LIKELY = 8, 4
"""Characters that a known secret has at least: shorter ones stand in other words. The second is of what bears the name
of a secret."""
_NAME = re.compile(
    r"(?i)(token|passw|pwd|secret|api[_-]?key|credential|private[_-]?key|auth|cookie|_key\b|\bkey\b)"
)
_HARMLESS = frozenset(
    {"key", "token_usage", "tokens_per_second", "token_limits", "key_origin", "PWD", "OLDPWD"}
)
"""Names of fields that have such a word in them, and no secret."""
_COUNTED = re.compile(r"(?i)tokens|token_(?:id|count|usage)|max_token|_tokens?_per")
# As ``text.SECRET_FLAG``, and in lists as Python and JSON write them. Possessive like that one: else a log with a long
# run of such words would take quadratic time.
_FLAG = re.compile(
    rf"(?i)((?<![\w-])--?(?>[\w-]*{SECRET_WORD})[\w-]*+(?:=|\s+|['\"],\s*['\"]))"
    r"([^\s'\",]+)"
)
_HEADER = re.compile(
    r"(?im)((?:proxy-)?authorization|(?:set-)?cookie|x-api-key|x-auth-[\w-]+|api-key)(['\"]?\s*[:=,]\s*)(?:b?['\"])?[^\r\n'\"]+"
)
_FORMS = re.compile(
    r"\b(?:hf_[A-Za-z0-9]{6,}|sk-[A-Za-z0-9_-]{12,}|gh[pousr]_[A-Za-z0-9]{12,}|github_pat_\w{12,}|glpat-[\w-]{12,}"
    r"|AKIA[0-9A-Z]{16}|xox[abprs]-[\w-]{10,}|eyJ[\w-]{8,}\.[\w-]{8,}\.[\w-]*|ms-[0-9a-f]{8}-[0-9a-f-]{20,})"
)
_PEM = re.compile(r"-----BEGIN [A-Z ]*PRIVATE KEY-----.*?(?:-----END [A-Z ]*PRIVATE KEY-----|\Z)", re.S)
_PEM_END = re.compile(
    r"(?m)^(?:[A-Za-z0-9+/]{60,100}+\r?\n){0,120}+(?:[A-Za-z0-9+/=]{1,100}+\r?\n)?(?=-----END [A-Z ]*PRIVATE KEY-----)"
)
"""What is left of one whose beginning was cut off."""
# In prose, so that names are told more strictly than in documents: tokenizers and authors are no secrets.
_ASSIGNED = re.compile(
    r"(?i)(?<![\w.-])([\w.-]{0,60}?(?:[_.-]keys?(?:_id)?|(?:account|access|shared|private|secret|api)key"
    r"|(?:secret|passw|passphrase|credential)[\w.-]{0,40}+|signature|(?<![a-z0-9])(?:sig|pwd|token|pass|pat))"
    r"['\"]?[ \t]{0,3}[=:][ \t]{0,3}b?)"
    r"(?:\"[^\"\r\n]{0,1024}\"|'[^'\r\n]{0,1024}'|[^\s,;'\"&]+)"
)
_USER_INFO = re.compile(r"(?<=://)[^\s/@:'\"<>]{20,}+(?=@)")
"""A token in the place of a name: those of people are shorter."""
_AUTHORITY = re.compile(r"(?<=:)//[^\s'\"<>]+")
"""An address from behind its scheme, which tells nothing and is slow to look for in a long word."""


@attrs.define(eq=False)
class SecretScrubber:
    """Knows secrets by ``learn``, and takes them out of texts and documents in every spelling that they come in."""

    _known: set[str] = attrs.field(factory=set, repr=False)

    def learn(self, secret: str | None, *, likely: bool = True) -> None:
        """A secret word by word. ``likely``: it bears the name of one; else it is one perhaps, and a short word
        stays."""
        text = (secret or "").strip()
        if len(text) >= (_SHORTEST_LIKELY if likely else _SHORTEST):
            self._known.add(text)

    def learn_environment(self, environment: Mapping[str, str]) -> None:
        """The values that bear the name of a secret, and the passwords in addresses."""
        for name, value in environment.items():
            if is_secret_name(name):
                self.learn(value)
            self.learn_urls(value)

    def learn_urls(self, text: str) -> None:
        """The passwords of the addresses in a text."""
        for found in _AUTHORITY.findall(text):
            try:
                password = urlsplit(found).password
            except ValueError:
                continue
            if password:
                self.learn(password)
                self.learn(unquote(password))

    def learn_document(self, document: Any, name: str = "") -> None:
        """What bears the name of a secret in a document of the API, every value of an ``env``, and what follows a flag
        such as ``--api-key`` in a list."""
        if isinstance(document, Mapping):
            for key, value in document.items():
                if str(key) == "env" and isinstance(value, Mapping):
                    for one, text in value.items():
                        self.learn(str(text), likely=is_secret_name(str(one)))
                self.learn_document(value, str(key))
        elif isinstance(document, list | tuple):
            self.learn_flags([str(item) for item in document if isinstance(item, str)])
            for item in document:
                self.learn_document(item)
        elif isinstance(document, str):
            if is_secret_name(name):
                self.learn(document)
            self.learn_urls(document)
            for found in _FLAG.finditer(document):
                self.learn(found[2])

    def learn_flags(self, arguments: Iterable[str]) -> None:
        """What follows a flag of a secret in the arguments of a program: some flags take several."""
        flag, behind = "", 0
        for argument in arguments:
            behind += 1
            is_value = flag and (behind == 1 or not argument.startswith("-"))
            for found in _FLAG.finditer(f"{flag} {argument}" if is_value else argument):
                self.learn(found[2], likely=behind == 1 or not is_value)
            if argument.startswith("-"):
                flag, behind = argument, 0

    def document(self, document: Any, name: str = "") -> Any:
        """A JSON value without secrets: of an ``env`` only the names stay."""
        if isinstance(document, Mapping):
            if name == "env":
                return {self.text(str(key)): MASK for key in document}
            return {self.text(str(key)): self.document(value, str(key)) for key, value in document.items()}
        if isinstance(document, list | tuple):
            places = behind_secret_flags(document)
            return [
                MASK if secret else self.document(one) for one, secret in zip(document, places, strict=True)
            ]
        if not isinstance(document, str):
            return document
        return MASK if document and is_secret_name(name) else self.text(document)

    def text(self, text: str) -> str:
        """A text without secrets."""
        for secret in self._spellings():
            text = text.replace(secret, MASK)
        text = _PEM_END.sub(MASK, _PEM.sub(MASK, text))
        text = _HEADER.sub(rf"\1\2{MASK}", text)
        text = _FLAG.sub(rf"\1{MASK}", text)
        text = _ASSIGNED.sub(rf"\1{MASK}", text)
        return _FORMS.sub(MASK, redacted(_USER_INFO.sub(MASK, text)))

    def holds(self, text: str) -> bool:
        """Whether a text holds a known secret."""
        return any(secret in text for secret in self._spellings())

    def _spellings(self) -> list[str]:
        """Every known secret as it is, within JSON and within a URL; the longest first, since one may hold another."""
        found = {
            spelling
            for secret in self._known
            for spelling in (secret, json.dumps(secret)[1:-1], quote(secret, safe=""), repr(secret)[1:-1])
        }
        return sorted(found, key=lambda one: (-len(one), one))


def is_secret_name(name: str) -> bool:
    """Whether a field or a variable of that name holds a secret. Rather too often than too seldom."""
    return name not in _HARMLESS and bool(_NAME.search(name)) and not _COUNTED.search(name)
