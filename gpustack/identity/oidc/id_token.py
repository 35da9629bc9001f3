"""Verifies id tokens, and reads a person from their claims. Pure."""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import math
from collections.abc import Mapping, Sequence
from json import loads
from typing import Any, TypeGuard

import attrs
from joserfc import jwt
from joserfc.errors import JoseError

from gpustack.domain.access import UserSource
from gpustack.errors import Forbidden
from gpustack.identity.person import AttributeNames, DefaultAttributeNames, ExternalPerson, read_person

from .provider_document import ALGORITHMS
from .provider_keys import PublicKey

LONGEST = 64 << 10
"""Characters of a token."""
SKEW = 60
"""The allowed difference of the clocks, in seconds."""

_HASHES = {"256": hashlib.sha256, "384": hashlib.sha384, "512": hashlib.sha512}


class BadToken(Forbidden):
    """An id token that is not accepted; the sentence says why."""

    def __init__(self, why: str) -> None:
        super().__init__(f"The identity provider's token proves nothing: {why}")


@attrs.frozen(kw_only=True)
class TokenRequirements:
    """The values that a token must agree with."""

    issuer: str
    client_id: str
    nonce: str = attrs.field(repr=False)
    algorithms: tuple[str, ...]
    access_token: str | None = attrs.field(default=None, repr=False)


def key_id(id_token: str) -> str | None:
    """The key id in the token's header, unverified. Raises ``BadToken`` for any other text or algorithm."""
    header = _header(id_token)
    algorithm = header.get("alg")
    if algorithm not in ALGORITHMS:
        raise BadToken(f"it is signed by {ascii(algorithm)[:40]}, which is not taken")
    kid = header.get("kid")
    return kid if isinstance(kid, str) else None


def verify(
    id_token: str, keys: Sequence[PublicKey], expected: TokenRequirements, *, now: float
) -> Mapping[str, Any]:
    """The claims of a token: signature, issuer, audience, times and nonce are checked. Raises ``BadToken``."""
    claims, algorithm = _verified(id_token, keys, expected.algorithms)
    if claims.get("iss") != expected.issuer:
        raise BadToken("another issuer made it")
    _judge_audience(claims, expected.client_id)
    _judge_times(claims, now)
    if not _same(claims.get("nonce"), expected.nonce):
        raise BadToken("it was made for another sign-in")
    if not isinstance(claims.get("sub"), str):
        raise BadToken("it names nobody")
    half = claims.get("at_hash")
    if (
        half is not None
        and expected.access_token is not None
        and not _same(half, _half_hash(expected.access_token, algorithm))
    ):
        raise BadToken("it belongs to another access token")
    return claims


def _verified(
    id_token: str, keys: Sequence[PublicKey], algorithms: Sequence[str]
) -> tuple[dict[str, Any], str]:
    key_id(id_token)
    if not keys:
        raise BadToken("no key of the provider has signed it")
    for key in keys:
        try:
            token = jwt.decode(id_token, key, algorithms=list(algorithms))
        except (JoseError, ValueError, TypeError, RecursionError):
            continue
        return token.claims, str(token.header["alg"])
    raise BadToken("no key of the provider has signed it")


def _judge_audience(claims: Mapping[str, Any], client_id: str) -> None:
    audience = claims.get("aud")
    audiences = [audience] if isinstance(audience, str) else audience
    if not isinstance(audiences, list) or client_id not in audiences:
        raise BadToken("it was made for another client")
    if ("azp" in claims or len(audiences) > 1) and claims.get("azp") != client_id:
        raise BadToken("it was given to another client")


def _judge_times(claims: Mapping[str, Any], now: float) -> None:
    exp, iat, nbf = (claims.get(name) for name in ("exp", "iat", "nbf"))
    nbf = iat if nbf is None else nbf
    if not _is_number(exp) or not _is_number(iat) or not _is_number(nbf):
        raise BadToken("it does not say when it was made and when it ends")
    if exp <= now - SKEW:
        raise BadToken("it has ended; are the clocks of both sides right?")
    if max(iat, nbf) > now + SKEW:
        raise BadToken("it is from the future; are the clocks of both sides right?")


def _is_number(value: Any) -> TypeGuard[float]:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def _half_hash(access_token: str, algorithm: str) -> str:
    digest = _HASHES.get(algorithm[-3:], hashlib.sha512)(access_token.encode()).digest()
    return base64.urlsafe_b64encode(digest[: len(digest) // 2]).rstrip(b"=").decode()


def _same(given: Any, wanted: str) -> bool:
    return isinstance(given, str) and hmac.compare_digest(given.encode(), wanted.encode())


def _header(id_token: str) -> dict[str, Any]:
    part = id_token.partition(".")[0]
    try:
        if len(id_token) > LONGEST or not id_token.isascii() or id_token.count(".") != 2:
            raise ValueError
        found = loads(base64.urlsafe_b64decode(part + "=" * (-len(part) % 4)))
    except (ValueError, binascii.Error, RecursionError):
        raise BadToken("it cannot be read") from None
    if not isinstance(found, dict):
        raise BadToken("it cannot be read")
    return found


# --- the person

DEFAULT_NAMES = DefaultAttributeNames(username=("email", "sub"), full_name=("name",), avatar_url=("picture",))


def person_of(claims: Mapping[str, Any], names: AttributeNames) -> ExternalPerson:
    """The person that verified claims describe. Raises ``Forbidden``.

    An email address counts only where the provider says that it was verified: anybody could enter any address there.
    """
    if names.username == "email" and claims.get("email") and not _is_verified(claims):
        raise Forbidden(
            "The OIDC provider does not say that your email address was verified, so it is not taken as your name: "
            "have it verified there, or choose another claim with --external-auth-name"
        )
    return read_person(
        lambda name: values(claims, name),
        names,
        DEFAULT_NAMES,
        source=UserSource.OIDC,
        issuer=str(claims["iss"]),
        subject=str(claims["sub"]),
    )


def lacks(claims: Mapping[str, Any], names: AttributeNames) -> bool:
    """Whether a claim that is wanted is missing: then the userinfo endpoint is asked."""
    wanted = [
        names.username or DEFAULT_NAMES.username[0],
        *(part.strip() for part in (names.full_name or DEFAULT_NAMES.full_name[0]).split("+")),
        names.avatar_url or DEFAULT_NAMES.avatar_url[0],
        *((names.groups,) if names.groups else ()),
    ]
    return any(not values(claims, name) for name in wanted)


def values(claims: Mapping[str, Any], name: str) -> Sequence[str]:
    """The values of a claim. ``realm_access.roles`` is read from inside ``realm_access``, if no claim has that name."""
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
