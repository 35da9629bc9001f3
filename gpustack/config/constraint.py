"""What must hold of and between options once each has been read: pure, all problems at once."""

from __future__ import annotations

import ipaddress
import itertools
import re
from collections.abc import Iterator
from urllib.parse import urlsplit

import attrs

from gpustack.config.database_url import login_fault
from gpustack.config.option import mask_url
from gpustack.config.options import Options
from gpustack.config.role import Role, ports
from gpustack.config.sign_on import sign_on_faults
from gpustack.config.value import quote

_HOST_LABEL = re.compile(r"(?!-)[A-Za-z0-9_-]{1,63}(?<!-)")
_WORKER_NAME = re.compile(r"[A-Za-z0-9]([A-Za-z0-9._-]{0,251}[A-Za-z0-9])?")
_IN_HEADER = re.compile(r"[!-~]*")
_ORIGIN = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*://[^/?#\s@]+/?")
_DATABASES = ("sqlite", "postgresql", "postgres", "mysql", "mariadb")


@attrs.frozen
class OptionFault:
    """A sentence, and the options it is about: the first of them that someone set is to blame."""

    names: tuple[str, ...]
    sentence: str


def problems(options: Options, part: Role, *, platform: str) -> list[OptionFault]:
    """Everything wrong with ``options`` for a daemon of that role on ``platform`` (``sys.platform``)."""
    found = [*_pairs(options, part, platform), *_times(options), *_ports(options, part), *_urls(options)]
    found += _names(options)
    found += [OptionFault(names, sentence) for names, sentence in sign_on_faults(options)]
    return found


def _pairs(options: Options, part: Role, platform: str) -> Iterator[OptionFault]:
    both = ("ssl_keyfile", "ssl_certfile")
    if (options.ssl_keyfile is None) != (options.ssl_certfile is None):
        absent = both[0] if options.ssl_keyfile is None else both[1]
        yield OptionFault(both, f"ssl_keyfile and ssl_certfile go together, and {absent} is not set")
    if part == "worker" and options.token is None:
        yield OptionFault(
            ("server_url", "token"),
            "a worker that joins a server needs its token: set token to what <data-dir>/token holds there (without "
            "server_url it starts as a server)",
        )
    if part == "worker" and options.disable_worker:
        yield OptionFault(
            ("disable_worker", "server_url"), "disable_worker and server_url together leave nothing to run"
        )
    if options.enable_ray and not platform.startswith("linux"):
        yield OptionFault(("enable_ray",), "enable_ray works on Linux only")


def _times(options: Options) -> Iterator[OptionFault]:
    if options.heartbeat_timeout <= options.heartbeat_interval:
        yield OptionFault(
            ("heartbeat_timeout", "heartbeat_interval"),
            f"heartbeat_timeout ({options.heartbeat_timeout:g} s) must be longer than heartbeat_interval "
            f"({options.heartbeat_interval:g} s)",
        )
    if options.reschedule_grace < options.heartbeat_timeout:
        yield OptionFault(
            ("reschedule_grace", "heartbeat_timeout"),
            f"reschedule_grace ({options.reschedule_grace:g} s) must not be shorter than heartbeat_timeout "
            f"({options.heartbeat_timeout:g} s)",
        )


def _ports(options: Options, part: Role) -> Iterator[OptionFault]:
    for (one, first), (other, second) in itertools.combinations(ports(options, part), 2):
        if first.first <= second.last and second.first <= first.last:
            shown = [str(r.first) if len(r) == 1 else str(r) for r in (first, second)]
            yield OptionFault((other, one), f"{other} ({shown[1]}) collides with {one} ({shown[0]})")


def _urls(options: Options) -> Iterator[OptionFault]:
    for name in (
        "server_url",
        "advertise_url",
        "ollama_library_base_url",
        "update_check_url",
        "tools_download_base_url",
        "oidc_issuer",
        "oidc_redirect_uri",
        "saml_idp_server_url",
        "saml_sp_acs_url",
    ):
        url = getattr(options, name)
        if url is not None and not is_http_url(url):
            yield OptionFault(
                (name,), f"{name} must be a URL such as http://host:port, not {quote(mask_url(url))}"
            )
    for origin in options.allow_origins:
        if origin.strip() != "*" and not _ORIGIN.fullmatch(origin.strip()):
            yield OptionFault(
                ("allow_origins",),
                f"allow_origins takes * and origins such as https://host or https://host:port, not {quote(origin)}",
            )
    scheme = options.database_url.partition("://")[0].partition("+")[0]
    if "://" not in options.database_url or scheme not in _DATABASES:
        # The URL itself stays out of the sentence: it may hold a password.
        yield OptionFault(
            ("database_url",), "database_url must begin with sqlite://, postgresql:// or mysql://"
        )
    elif sentence := login_fault(options.database_url):
        yield OptionFault(("database_url",), f"database_url {sentence}")


def is_http_url(url: str) -> bool:
    """Whether ``url`` has a scheme of the web, a host and, if any, a port that can be."""
    try:
        parts = urlsplit(url)
        return parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:
        return False


def _names(options: Options) -> Iterator[OptionFault]:
    for name in ("token", "huggingface_token"):
        # They travel in a header, which holds these characters only; the value stays out of the sentence.
        if not _IN_HEADER.fullmatch(getattr(options, name) or ""):
            yield OptionFault((name,), f"{name} takes letters, digits and signs of ASCII, without spaces")
    if not _is_host(options.host):
        yield OptionFault(("host",), f"host must be an IP address or a host name, not {quote(options.host)}")
    if options.worker_ip is not None and not _is_address(options.worker_ip):
        yield OptionFault(("worker_ip",), f"worker_ip must be an IP address, not {quote(options.worker_ip)}")
    if options.worker_name is not None and not _WORKER_NAME.fullmatch(options.worker_name):
        yield OptionFault(
            ("worker_name",),
            "worker_name takes letters, digits, dots, dashes and underscores, and begins and ends with a letter "
            f"or digit, not {quote(options.worker_name)}",
        )


def _is_address(text: str) -> bool:
    try:
        ipaddress.ip_address(text)
    except ValueError:
        return False
    return True


def _is_host(text: str) -> bool:
    if _is_address(text):
        return True
    labels = text.rstrip(".").split(".")
    looks_numeric = re.fullmatch(r"[0-9.]+", text) is not None  # 10.0.0.300 is a typing mistake, no name
    return not looks_numeric and len(text) <= 253 and all(map(_HOST_LABEL.fullmatch, labels))
