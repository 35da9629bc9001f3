"""Who another party says somebody is, read from its claims or attributes. Pure.

What comes from there is checked here once: bounded, printable, and a name that an account may have.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from urllib.parse import urlsplit

import attrs
from cattrs.preconf.orjson import make_converter

from gpustack.domain.access import UserSource
from gpustack.errors import Forbidden

from .username import LONGEST, RULE, is_username

Look = Callable[[str], Sequence[str]]
"""What the party says under a name: one text, several, or none."""

LONGEST_URL = 2048
"""Characters of the URL of a picture, whoever sets it."""

_CONVERTER = make_converter(detailed_validation=False)
_LONGEST_KEY = 255
_LONGEST_FULL_NAME = 255
_LONGEST_GROUP = 512
_MOST_GROUPS = 1000


@attrs.frozen(kw_only=True)
class AttributeNames:
    """Under which names the party tells what (``--external-auth-*``). ``None``: the party's usual ones.

    ``full_name`` may be several joined by ``+``. Groups are looked at only where ``groups`` is set.
    """

    username: str | None = None
    full_name: str | None = None
    avatar_url: str | None = None
    groups: str | None = None


@attrs.frozen(kw_only=True)
class DefaultAttributeNames:
    """The names to try in turn where nothing is set; those of a kind of party."""

    username: tuple[str, ...]
    full_name: tuple[str, ...]
    avatar_url: tuple[str, ...] = ()


@attrs.frozen(kw_only=True)
class ExternalPerson:
    """Somebody whose identity was proved. ``(issuer, subject)`` is who it is, the rest is how it is shown.

    ``groups`` is ``None`` where nobody looks at them.
    """

    source: UserSource
    issuer: str
    subject: str
    username: str
    full_name: str | None = None
    avatar_url: str | None = None
    groups: frozenset[str] | None = None


def read_person(
    look: Look,
    naming: AttributeNames,
    usual: DefaultAttributeNames,
    *,
    source: UserSource,
    issuer: str,
    subject: str,
) -> ExternalPerson:
    """The person behind what a party said and proved.

    Raises ``Forbidden``, with a sentence that says what to change, when there is no usable subject or user name. A full
    name, picture or group that is unfit to be shown is left out: nobody is kept out by it.
    """
    if not _is_key(issuer) or not _is_key(subject):
        raise Forbidden(
            f"The {source} provider identifies you by something that is empty, longer than {_LONGEST_KEY} "
            "characters or not printable"
        )
    return ExternalPerson(
        source=source,
        issuer=issuer,
        subject=subject,
        username=_username(look, naming.username, usual.username, source),
        full_name=_full_name(look, naming.full_name, usual.full_name),
        avatar_url=_avatar(look, (naming.avatar_url,) if naming.avatar_url else usual.avatar_url),
        groups=None if naming.groups is None else _groups(look(naming.groups)),
    )


def _username(look: Look, chosen: str | None, usual: Sequence[str], source: UserSource) -> str:
    name = _first(look, (chosen,) if chosen else usual)
    if name is None:
        raise Forbidden(
            f"The {source} provider says nothing under {' or '.join(map(repr, (chosen,) if chosen else usual))}, "
            "from which the user name is taken: have it sent, or choose another name with --external-auth-name"
        )
    if not is_username(name):
        raise Forbidden(
            f"What the {source} provider gives as the user name cannot be one here: it {RULE}, and has at most "
            f"{LONGEST} characters; choose another name with --external-auth-name"
        )
    return name


def _full_name(look: Look, chosen: str | None, usual: Sequence[str]) -> str | None:
    if chosen is None:
        found = _first(look, usual)
    else:
        parts = [_first(look, (part.strip(),)) for part in chosen.split("+") if part.strip()]
        found = " ".join(part for part in parts if part)
    return found if found and found.isprintable() and len(found) <= _LONGEST_FULL_NAME else None


def _avatar(look: Look, names: Sequence[str]) -> str | None:
    found = _first(look, names)
    if found is None or len(found) > LONGEST_URL or not found.isprintable() or " " in found:
        return None
    try:
        parts = urlsplit(found)
    except ValueError:
        return None
    return found if parts.scheme in ("http", "https") and parts.netloc else None


def _groups(values: Sequence[str]) -> frozenset[str]:
    return frozenset(
        value for value in values[:_MOST_GROUPS] if value.isprintable() and 0 < len(value) <= _LONGEST_GROUP
    )


def _first(look: Look, names: Sequence[str]) -> str | None:
    for name in names:
        for value in look(name):
            if value.strip():
                return value.strip()
    return None


def _is_key(text: str) -> bool:
    return 0 < len(text) <= _LONGEST_KEY and text.isprintable()


def pack(person: ExternalPerson) -> str:
    """The person as text, to be kept while a browser takes its last step."""
    return _CONVERTER.dumps(person).decode()


def unpack(text: str) -> ExternalPerson | None:
    """The person that ``pack`` made a text of; ``None`` for what is no such text."""
    try:
        return _CONVERTER.loads(text, ExternalPerson)
    except (ValueError, TypeError, KeyError):
        return None
