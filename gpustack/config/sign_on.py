"""Which other party people sign in by, and what must hold of the options about it. Pure."""

from __future__ import annotations

import ipaddress
from collections.abc import Iterator
from typing import Literal
from urllib.parse import SplitResult, urlsplit

from gpustack.config.options import Options
from gpustack.config.saml import saml_faults
from gpustack.config.value import quote

Kind = Literal["OIDC", "SAML"]
Fault = tuple[tuple[str, ...], str]
"""The options it is about, and a sentence."""

OIDC_CALLBACK = "/auth/oidc/callback"
SAML_CALLBACK = "/auth/saml/callback"


def sign_on_kind(options: Options) -> Kind | None:
    """By what people sign in beside passwords: what ``external_auth_type`` says, else what is configured."""
    chosen = (options.external_auth_type or "").upper()
    if chosen in ("OIDC", "SAML"):
        return "OIDC" if chosen == "OIDC" else "SAML"
    if options.oidc_issuer is not None:
        return "OIDC"
    return "SAML" if options.saml_idp_server_url is not None else None


def sign_on_faults(options: Options) -> Iterator[Fault]:
    """Everything that is wrong with these options, whichever party is chosen."""
    kind = options.external_auth_type
    needed = {"OIDC": "oidc_issuer", "SAML": "saml_idp_server_url"}
    if kind is not None and kind.upper() not in needed:
        yield ("external_auth_type",), f"external_auth_type must be OIDC or SAML, not {quote(kind)}"
    elif kind is not None and getattr(options, needed[kind.upper()]) is None:
        yield (
            ("external_auth_type",),
            f"external_auth_type is {kind}, and {needed[kind.upper()]} is not set",
        )
    if bool(options.external_auth_groups) != bool(options.external_auth_admin_groups):
        yield (
            ("external_auth_groups", "external_auth_admin_groups"),
            "external_auth_groups and external_auth_admin_groups go together: where the groups are found, and whose "
            "members are administrators",
        )
    yield from _oidc(options)
    yield from saml_faults(options, chosen=sign_on_kind(options) == "SAML")
    yield from callback_faults("saml_sp_acs_url", options.saml_sp_acs_url, SAML_CALLBACK)


def _oidc(options: Options) -> Iterator[Fault]:
    if options.oidc_issuer is None:
        return
    for name in ("oidc_client_id", "oidc_redirect_uri"):
        if getattr(options, name) is None:
            yield (name, "oidc_issuer"), f"oidc_issuer is set, and {name} is not"
    if (parts := split(options.oidc_issuer)) is not None:
        if parts.query or parts.fragment:
            yield ("oidc_issuer",), "oidc_issuer must be without query and fragment"
        if parts.scheme == "http" and not is_loopback(parts.hostname):
            yield (
                ("oidc_issuer",),
                "oidc_issuer must begin with https: whoever stands between could sign in as anybody",
            )
    yield from callback_faults("oidc_redirect_uri", options.oidc_redirect_uri, OIDC_CALLBACK)


def callback_faults(name: str, url: str | None, path: str) -> Iterator[Fault]:
    """What is wrong with an address to which the other party sends browsers back."""
    parts = None if url is None else split(url)
    if parts is not None and (not parts.path.endswith(path) or parts.query or parts.fragment):
        yield (name,), f"{name} must be <server-url>{path}, not {quote(url or '')}"


def open_callbacks(options: Options) -> Iterator[str]:
    """The options that send browsers back over a network without TLS."""
    for name in ("oidc_redirect_uri", "saml_sp_acs_url"):
        parts = split(getattr(options, name) or "")
        if parts is not None and parts.scheme == "http" and not is_loopback(parts.hostname):
            yield name


def is_loopback(host: str | None) -> bool:
    """Whether a host is this machine, said so that nobody can point it elsewhere."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host or "").is_loopback
    except ValueError:
        return False


def split(url: str) -> SplitResult | None:
    """The parts of an http or https address; ``None`` for what is none (that is told elsewhere)."""
    try:
        parts = urlsplit(url)
        return parts if parts.scheme in ("http", "https") and parts.hostname else None
    except ValueError:
        return None
