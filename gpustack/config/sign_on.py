"""Sign-in with an identity provider (OIDC or SAML): which one is chosen, and what must hold of its options. Pure."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Literal

from gpustack.config.options import Options
from gpustack.config.origin import OptionFault
from gpustack.config.saml import saml_faults
from gpustack.config.url import http_parts, is_loopback
from gpustack.config.value import quote

SignOnKind = Literal["OIDC", "SAML"]

OIDC_CALLBACK = "/auth/oidc/callback"
SAML_CALLBACK = "/auth/saml/callback"


def sign_on_kind(options: Options) -> SignOnKind | None:
    """How users sign in besides passwords: as ``external_auth_type`` says, else as the options that are set say."""
    chosen = (options.external_auth_type or "").upper()
    if chosen in ("OIDC", "SAML"):
        return "OIDC" if chosen == "OIDC" else "SAML"
    if options.oidc_issuer is not None:
        return "OIDC"
    return "SAML" if options.saml_idp_server_url is not None else None


def sign_on_faults(options: Options) -> Iterator[OptionFault]:
    """Everything that is wrong with the options of both kinds, whichever is chosen."""
    kind = options.external_auth_type
    needed = {"OIDC": "oidc_issuer", "SAML": "saml_idp_server_url"}
    if kind is not None and kind.upper() not in needed:
        yield OptionFault(
            ("external_auth_type",), f"external_auth_type must be OIDC or SAML, not {quote(kind)}"
        )
    elif kind is not None and getattr(options, needed[kind.upper()]) is None:
        yield OptionFault(
            ("external_auth_type",),
            f"external_auth_type is {kind}, and {needed[kind.upper()]} is not set",
        )
    if bool(options.external_auth_groups) != bool(options.external_auth_admin_groups):
        yield OptionFault(
            ("external_auth_groups", "external_auth_admin_groups"),
            "external_auth_groups and external_auth_admin_groups go together: where the groups are found, and whose "
            "members are administrators",
        )
    yield from _oidc_faults(options)
    yield from saml_faults(options, chosen=sign_on_kind(options) == "SAML")
    yield from callback_faults("saml_sp_acs_url", options.saml_sp_acs_url, SAML_CALLBACK)


def _oidc_faults(options: Options) -> Iterator[OptionFault]:
    if options.oidc_issuer is None:
        return
    for name in ("oidc_client_id", "oidc_redirect_uri"):
        if getattr(options, name) is None:
            yield OptionFault((name, "oidc_issuer"), f"oidc_issuer is set, and {name} is not")
    if (parts := http_parts(options.oidc_issuer)) is not None:
        if parts.query or parts.fragment:
            yield OptionFault(("oidc_issuer",), "oidc_issuer must be without query and fragment")
        if parts.scheme == "http" and not is_loopback(parts.hostname):
            yield OptionFault(
                ("oidc_issuer",),
                "oidc_issuer must begin with https: whoever stands between could sign in as anybody",
            )
    yield from callback_faults("oidc_redirect_uri", options.oidc_redirect_uri, OIDC_CALLBACK)


def callback_faults(name: str, url: str | None, path: str) -> Iterator[OptionFault]:
    """What is wrong with a URL to which the provider sends browsers back; ``path`` must end it."""
    parts = None if url is None else http_parts(url)
    if parts is not None and (not parts.path.endswith(path) or parts.query or parts.fragment):
        yield OptionFault((name,), f"{name} must be <server-url>{path}, not {quote(url or '')}")


def open_callbacks(options: Options) -> Iterator[str]:
    """The options whose URLs send browsers back over a network without TLS."""
    for name in ("oidc_redirect_uri", "saml_sp_acs_url"):
        parts = http_parts(getattr(options, name) or "")
        if parts is not None and parts.scheme == "http" and not is_loopback(parts.hostname):
            yield name
