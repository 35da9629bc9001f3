"""A verified assertion: whether it is for this server, request and time, and what it says. Reads only signed XML."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any
from urllib.parse import quote

import attrs

from gpustack.errors import Forbidden

from .message import ASSERTION, refused
from .settings import SamlSettings

_S = "{urn:oasis:names:tc:SAML:2.0:assertion}"
_CLAIMS = "http://schemas.xmlsoap.org/ws/2005/05/identity/claims/"
_BEARER = "urn:oasis:names:tc:SAML:2.0:cm:bearer"
_UNSPECIFIED = "urn:oasis:names:tc:SAML:1.1:nameid-format:unspecified"
_TRANSIENT = "urn:oasis:names:tc:SAML:2.0:nameid-format:transient"
_TIME = re.compile(r"(\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d)(\.\d+)?(Z|[+-]\d\d:\d\d)?", re.ASCII)
_KEPT_AT_MOST = timedelta(days=1)


@attrs.frozen(kw_only=True)
class NameId:
    """The subject of an assertion."""

    text: str
    format: str = _UNSPECIFIED
    qualifier: str = ""
    sp_qualifier: str = ""

    @property
    def is_lasting(self) -> bool:
        """Whether it will be the same at the next login."""
        return bool(self.text) and self.format != _TRANSIENT


@attrs.frozen(kw_only=True)
class Assertion:
    """What the identity provider says about a person, proved."""

    id_hash: str
    """SHA-256 of its issuer and id, by which its use is recorded."""
    used_until: datetime
    """Until then its use must stay recorded."""
    issuer: str
    name_id: NameId | None
    attributes: Mapping[str, tuple[str, ...]]
    friendly: Mapping[str, tuple[str, ...]] = attrs.field(factory=dict)
    """The attributes by their friendly names."""
    prefix: str = ""

    def values(self, name: str) -> Sequence[str]:
        """The values of an attribute: with our prefix, as a claim, by its name, or by its friendly name."""
        for prefix in (*filter(None, (self.prefix,)), _CLAIMS, ""):
            if (known := prefix + name) in self.attributes:
                return self.attributes[known]
        if name in ("name_id", "nameidentifier") and self.name_id is not None and self.name_id.is_lasting:
            return (self.name_id.text,)
        return self.friendly.get(name, ())

    def subject(self, chosen: str | None) -> str:
        """The identity of the account: the name id with its format and qualifiers.

        Where that is missing or new at each login, it is the attribute ``chosen`` for the user name, if that has one
        value. Raises ``Forbidden`` when there is nothing that lasts.
        """
        if (name := self.name_id) is not None and name.is_lasting:
            parts = (name.format.rpartition(":")[2], name.qualifier, name.sp_qualifier)
            return "!".join((*(quote(part, safe="/:") for part in parts), name.text))
        values = [value.strip() for value in self.values(chosen)] if chosen else []
        if len(values) == 1 and values[0]:
            return f"attribute!{quote(chosen or '', safe='/:')}!!{values[0]}"
        raise Forbidden(
            "The identity provider says nothing lasting of who you are (its name id is transient or absent): have it "
            "send a persistent name id, or name an attribute that never changes with --external-auth-name"
        )


def read_assertion(
    element: Any, settings: SamlSettings, *, request_id: str, now: datetime, skew: timedelta
) -> Assertion:
    """Read a signed assertion that is for us, for this request and for now. Raises ``Forbidden`` for any other."""
    issuer = _text(element.find(f"{_S}Issuer"))
    if element.tag != ASSERTION or not element.get("ID"):
        raise refused("the signed part is no assertion")
    if issuer != settings.idp_entity_id:
        raise refused("it comes from another provider than the configured one")
    ends = _conditions(element.find(f"{_S}Conditions"), settings, now, skew)
    ends = max(ends, _confirmation(element, settings, request_id, now, skew))
    for statement in element.iterfind(f"{_S}AuthnStatement"):
        session_ends = _instant(statement.get("SessionNotOnOrAfter"))
        if session_ends is not None and session_ends <= now:
            raise refused("the login there is over")
    attributes, friendly = _attributes(element, bool(settings.security["allowRepeatAttributeName"]))
    return Assertion(
        id_hash=hashlib.sha256(f"{issuer}\0{element.get('ID')}".encode()).hexdigest(),
        # After a day, the login under way that it answers has expired.
        used_until=min(ends + skew, now + _KEPT_AT_MOST),
        issuer=issuer,
        name_id=_name_id(element.find(f"{_S}Subject/{_S}NameID"), settings),
        attributes=attributes,
        friendly=friendly,
        prefix=settings.attribute_prefix,
    )


def _conditions(conditions: Any, settings: SamlSettings, now: datetime, skew: timedelta) -> datetime:
    if conditions is None:
        raise refused("it does not say for whom and until when it holds")
    begins, ends = _instant(conditions.get("NotBefore")), _instant(conditions.get("NotOnOrAfter"))
    _check_time(begins, ends, now, skew)
    restrictions = conditions.findall(f"{_S}AudienceRestriction")
    audiences = [[_text(one) for one in each.iterfind(f"{_S}Audience")] for each in restrictions]
    if not audiences or not all(settings.sp_entity_id in each for each in audiences):
        raise refused(
            f"it is not for us: saml_sp_entity_id ({settings.sp_entity_id}) is not among its audience"
        )
    return ends or now


def _confirmation(
    element: Any, settings: SamlSettings, request_id: str, now: datetime, skew: timedelta
) -> datetime:
    """Until when the bearer of the assertion may be taken for its subject."""
    why = "nobody may bring it by a browser"
    for one in element.iterfind(f"{_S}Subject/{_S}SubjectConfirmation"):
        data = one.find(f"{_S}SubjectConfirmationData")
        if one.get("Method") != _BEARER or data is None:
            continue
        ends = _instant(data.get("NotOnOrAfter"))
        if data.get("InResponseTo") != request_id:
            why = "it answers no request of ours"
        elif data.get("Recipient") != settings.acs_url:
            why = f"it was sent to another address than saml_sp_acs_url ({settings.acs_url})"
        elif ends is None:
            why = "it does not say until when it may be brought"
        else:
            _check_time(_instant(data.get("NotBefore")), ends, now, skew)
            return ends
    raise refused(why)


def _check_time(begins: datetime | None, ends: datetime | None, now: datetime, skew: timedelta) -> None:
    if begins is not None and now + skew < begins:
        raise refused("it does not hold yet: compare the clocks of the two machines")
    if ends is not None and now >= ends + skew:
        raise refused("it holds no more: sign in again, and compare the clocks of the two machines")


def _instant(text: str | None) -> datetime | None:
    if text is None:
        return None
    found = _TIME.fullmatch(text.strip())
    try:
        if found is None:
            raise ValueError
        # Fractions of any length are allowed there; they do not matter here.
        at = datetime.fromisoformat(found[1] + (found[3] or "Z"))
        return at.astimezone(UTC)
    except (ValueError, OverflowError) as error:
        raise refused("one of its times cannot be read") from error


def _name_id(element: Any, settings: SamlSettings) -> NameId | None:
    if element is None:
        return None
    qualifier, sp_qualifier = element.get("NameQualifier", ""), element.get("SPNameQualifier", "")
    return NameId(
        text=_text(element),
        format=element.get("Format") or _UNSPECIFIED,
        # A provider may leave out qualifiers that name itself or us: it is the same person either way.
        qualifier="" if qualifier == settings.idp_entity_id else qualifier,
        sp_qualifier="" if sp_qualifier == settings.sp_entity_id else sp_qualifier,
    )


def _attributes(element: Any, repeats: bool) -> tuple[dict[str, tuple[str, ...]], dict[str, tuple[str, ...]]]:
    found: dict[str, tuple[str, ...]] = {}
    friendly: dict[str, tuple[str, ...]] = {}
    for attribute in element.iterfind(f"{_S}AttributeStatement/{_S}Attribute"):
        name, values = attribute.get("Name", ""), tuple(_values(attribute))
        if name in found and not repeats:
            raise refused(f"it has the attribute {name[:200]!r} twice (allowRepeatAttributeName lets it)")
        found[name] = (*found.get(name, ()), *values)
        if shown := attribute.get("FriendlyName"):
            # A friendly name of several attributes names none of them.
            friendly[shown] = () if shown in friendly else values
    return found, friendly


def _values(attribute: Any) -> Iterator[str]:
    for value in attribute.iterfind(f"{_S}AttributeValue"):
        if len(value) == 0:  # what has elements inside is no text
            yield _text(value)


def _text(element: Any) -> str:
    return "" if element is None else (element.text or "").strip()
