"""Reads and checks the discovery document of a provider. Pure."""

from __future__ import annotations

import ipaddress
from collections.abc import Mapping
from typing import Any
from urllib.parse import urlsplit

import attrs

from gpustack.errors import Invalid

ALGORITHMS = (
    *("RS256", "RS384", "RS512", "PS256", "PS384", "PS512"),
    *("ES256", "ES384", "ES512", "EdDSA", "Ed25519"),
)
"""Signatures by a private key of the provider. Not HMAC or "none": with those, others could sign."""
_LONGEST = 2048
_MOST = 100


@attrs.frozen(kw_only=True)
class ProviderDocument:
    """The parts of a discovery document that are used here. Optional endpoints may be ``None``."""

    issuer: str
    authorization_endpoint: str
    token_endpoint: str
    jwks_uri: str
    userinfo_endpoint: str | None = None
    end_session_endpoint: str | None = None
    algorithms: tuple[str, ...] = ("RS256",)
    token_auth_methods: tuple[str, ...] = ("client_secret_basic",)
    scopes: tuple[str, ...] = ()
    says_issuer: bool = False
    """The answer to a sign-in names the issuer (RFC 9207)."""


def read_provider_document(told: Any, issuer: str) -> ProviderDocument:
    """The document of ``issuer``. Raises ``Invalid`` with every fault, a sentence each.

    Secrets and codes are sent to its endpoints: each must use TLS, unless the issuer itself is a program on this
    machine without it.
    """
    if not isinstance(told, Mapping):
        raise Invalid("the discovery document is no JSON object")
    faults: list[str] = []
    if told.get("issuer") != issuer:
        faults.append(f"it says that its issuer is {_short(told.get('issuer'))}, not {issuer}")
    here = issuer.startswith("http://") and is_loopback(issuer)

    def endpoint(name: str, *, needed: bool) -> str | None:
        value = told.get(name)
        if value is None and not needed:
            return None
        if not isinstance(value, str) or len(value) > _LONGEST or not is_endpoint(value, loopback=here):
            faults.append(f"its {name} is no https address: {_short(value)}")
            return None
        return value

    found = {
        name: endpoint(name, needed=needed)
        for name, needed in (
            ("authorization_endpoint", True),
            ("token_endpoint", True),
            ("jwks_uri", True),
            ("userinfo_endpoint", False),
            ("end_session_endpoint", False),
        )
    }
    offered = _words(told.get("id_token_signing_alg_values_supported")) or ("RS256",)
    algorithms = tuple(one for one in offered if one in ALGORITHMS)
    if not algorithms:
        faults.append(f"it signs by {', '.join(offered)} alone, none of which is safe for a sign-in")
    if faults:
        raise Invalid(*faults)
    return ProviderDocument(
        issuer=issuer,
        algorithms=algorithms,
        token_auth_methods=_words(told.get("token_endpoint_auth_methods_supported"))
        or ("client_secret_basic",),
        scopes=_words(told.get("scopes_supported")),
        says_issuer=told.get("authorization_response_iss_parameter_supported") is True,
        **found,  # type: ignore[arg-type]  # those that are needed are there, or there was a fault
    )


def is_endpoint(url: str, *, loopback: bool) -> bool:
    """Whether secrets may be sent there: by TLS, or with ``loopback`` to this machine."""
    try:
        parts = urlsplit(url)
        _ = parts.port
    except ValueError:
        return False
    if not parts.hostname or parts.username is not None or not url.isprintable() or " " in url:
        return False
    return parts.scheme == "https" or (parts.scheme == "http" and loopback and is_loopback(url))


def is_loopback(url: str) -> bool:
    """Whether the URL names this machine, by a name or address that cannot resolve elsewhere."""
    try:
        host = urlsplit(url).hostname or ""
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _words(value: Any) -> tuple[str, ...]:
    if not isinstance(value, list):
        return ()
    return tuple(one for one in value[:_MOST] if isinstance(one, str) and len(one) <= _LONGEST)


def _short(value: Any) -> str:
    return ascii(value)[:200]
