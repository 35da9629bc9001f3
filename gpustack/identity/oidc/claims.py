"""Reads a person from the claims of a provider. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from gpustack.domain.access import UserSource
from gpustack.errors import Forbidden
from gpustack.identity.person import AttributeNames, DefaultAttributeNames, ExternalPerson, read_person

USUAL = DefaultAttributeNames(username=("email", "sub"), full_name=("name",), avatar_url=("picture",))


def person_of(claims: Mapping[str, Any], naming: AttributeNames) -> ExternalPerson:
    """Who the claims (all proved) speak of. Raises ``Forbidden``.

    An address of which the provider does not say that it was verified is no name: everybody could type it in.
    """
    if naming.username == "email" and claims.get("email") and not _is_verified(claims):
        raise Forbidden(
            "The OIDC provider does not say that your email address was verified, so it is not taken as your name: "
            "have it verified there, or choose another claim with --external-auth-name"
        )
    return read_person(
        lambda name: values(claims, name),
        naming,
        USUAL,
        source=UserSource.OIDC,
        issuer=str(claims["iss"]),
        subject=str(claims["sub"]),
    )


def lacks(claims: Mapping[str, Any], naming: AttributeNames) -> bool:
    """Whether something that is wanted is not among the claims: then the provider is asked for more."""
    wanted = [
        naming.username or USUAL.username[0],
        *(part.strip() for part in (naming.full_name or USUAL.full_name[0]).split("+")),
        naming.avatar_url or USUAL.avatar_url[0],
        *((naming.groups,) if naming.groups else ()),
    ]
    return any(not values(claims, name) for name in wanted)


def values(claims: Mapping[str, Any], name: str) -> Sequence[str]:
    """What is said under a name. ``realm_access.roles`` looks inside ``realm_access``, if there is no such claim."""
    found = claims.get(name)
    if found is None and "." in name:
        outer, _, inner = name.partition(".")
        within = claims.get(outer)
        return values(within, inner) if isinstance(within, Mapping) else ()
    if name == "email" and not _is_verified(claims):
        return ()
    listed = found if isinstance(found, list) else [found]
    return [
        str(one)
        for one in listed
        if isinstance(one, str) or (isinstance(one, int) and not isinstance(one, bool))
    ]


def _is_verified(claims: Mapping[str, Any]) -> bool:
    return claims.get("email_verified") in (True, "true")
