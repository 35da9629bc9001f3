"""Names of accounts, and the person that an identity provider proves, read from its claims or attributes. Pure.

What the provider sends is checked here once: bounded, printable, and a name that an account may have.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Callable, Sequence
from urllib.parse import urlsplit

import attrs
from cattrs.preconf.orjson import make_converter

from gpustack.config.options import Options
from gpustack.domain.access import UsedAssertion, UserSource
from gpustack.errors import Forbidden

AttributeLookup = Callable[[str], Sequence[str]]
"""The values that the provider sends under a name; none where it does not."""

LONGEST_USERNAME = 128
"""Characters."""
USERNAME_RULE = "must be printable, without ':', and not begin with 'system/'"

LONGEST_URL = 2048
"""Characters of the URL of a picture."""

_CONVERTER = make_converter(detailed_validation=False)
_LONGEST_KEY = 255
_LONGEST_FULL_NAME = 255
_LONGEST_GROUP = 512
_MOST_GROUPS = 1000


def is_username(name: str) -> bool:
    """Whether an account may have this name.

    A colon would end the name in Basic credentials, and names of workers begin with ``system/`` there.
    """
    return (
        0 < len(name) <= LONGEST_USERNAME
        and name == name.strip()
        and name.isprintable()
        and ":" not in name
        and not name.startswith("system/")
    )


def looks_like(name: str) -> str:
    """A key that is equal for names that a person would confuse: ``Admin`` and ``admin``."""
    return unicodedata.normalize("NFKC", name).casefold()


@attrs.frozen(kw_only=True)
class AttributeNames:
    """The names of the claims or attributes that a person is read from (``--external-auth-*``).

    ``None``: the default names of the protocol. ``full_name`` may be several names joined by ``+``. Groups are read
    only where ``groups`` is set.
    """

    username: str | None = None
    full_name: str | None = None
    avatar_url: str | None = None
    groups: str | None = None

    @classmethod
    def of(cls, options: Options) -> AttributeNames:
        return cls(
            username=options.external_auth_name,
            full_name=options.external_auth_full_name,
            avatar_url=options.external_auth_avatar_url,
            groups=options.external_auth_groups,
        )


@attrs.frozen(kw_only=True)
class DefaultAttributeNames:
    """The names of a protocol, tried in turn where none is configured."""

    username: tuple[str, ...]
    full_name: tuple[str, ...]
    avatar_url: tuple[str, ...] = ()


@attrs.frozen(kw_only=True)
class ExternalPerson:
    """A person whose identity was proved. ``(issuer, subject)`` is the identity, the rest describes the account.

    ``groups`` is ``None`` where groups are not read.
    """

    source: UserSource
    issuer: str
    subject: str
    username: str
    full_name: str | None = None
    avatar_url: str | None = None
    groups: frozenset[str] | None = None


@attrs.frozen
class VerifiedIdentity:
    """What an answer of the provider proves."""

    person: ExternalPerson
    logout_hint: str | None = attrs.field(default=None, repr=False)
    """What the provider wants to be shown when the login ends there too."""
    assertion: UsedAssertion | None = None
    """A record to store, so that the same answer is not taken again; ``None`` where the flow excludes that."""


def read_person(
    values: AttributeLookup,
    names: AttributeNames,
    defaults: DefaultAttributeNames,
    *,
    source: UserSource,
    issuer: str,
    subject: str,
) -> ExternalPerson:
    """The person that proved claims or attributes describe.

    Raises ``Forbidden``, with a sentence that says what to change, when the subject or user name is missing or
    unusable. A full name, picture or group that cannot be shown is left out.
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
        username=_username(values, names.username, defaults.username, source),
        full_name=_full_name(values, names.full_name, defaults.full_name),
        avatar_url=_avatar(values, (names.avatar_url,) if names.avatar_url else defaults.avatar_url),
        groups=None if names.groups is None else _groups(values(names.groups)),
    )


def _username(
    values: AttributeLookup, chosen: str | None, defaults: Sequence[str], source: UserSource
) -> str:
    names = (chosen,) if chosen else defaults
    name = _first(values, names)
    if name is None:
        raise Forbidden(
            f"The {source} provider says nothing under {' or '.join(map(repr, names))}, "
            "from which the user name is taken: have it sent, or choose another name with --external-auth-name"
        )
    if not is_username(name):
        raise Forbidden(
            f"What the {source} provider gives as the user name cannot be one here: it {USERNAME_RULE}, and has at "
            f"most {LONGEST_USERNAME} characters; choose another name with --external-auth-name"
        )
    return name


def _full_name(values: AttributeLookup, chosen: str | None, defaults: Sequence[str]) -> str | None:
    if chosen is None:
        found = _first(values, defaults)
    else:
        parts = [_first(values, (part.strip(),)) for part in chosen.split("+") if part.strip()]
        found = " ".join(part for part in parts if part)
    return found if found and found.isprintable() and len(found) <= _LONGEST_FULL_NAME else None


def _avatar(values: AttributeLookup, names: Sequence[str]) -> str | None:
    found = _first(values, names)
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


def _first(values: AttributeLookup, names: Sequence[str]) -> str | None:
    for name in names:
        for value in values(name):
            if value.strip():
                return value.strip()
    return None


def _is_key(text: str) -> bool:
    return 0 < len(text) <= _LONGEST_KEY and text.isprintable()


def pack(person: ExternalPerson) -> str:
    """The person as JSON, to be stored until the browser comes for its login."""
    return _CONVERTER.dumps(person).decode()


def unpack(text: str) -> ExternalPerson | None:
    """The person that ``pack`` wrote; ``None`` for any other text."""
    try:
        return _CONVERTER.loads(text, ExternalPerson)
    except (ValueError, TypeError, KeyError):
        return None
