"""What must hold of options, of several together, and of the files they name: all faults at once."""

from __future__ import annotations

import ipaddress
import itertools
import os
import re
import stat
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import unquote, urlsplit

from gpustack.config.option import table
from gpustack.config.options import Options
from gpustack.config.origin import OptionFault
from gpustack.config.permission import writable_by_others
from gpustack.config.role import Role, ports
from gpustack.config.saml import KEPT, is_path
from gpustack.config.sign_on import sign_on_faults
from gpustack.config.url import is_http_url, login_fault, mask_url
from gpustack.config.value import quote, read_named_path
from gpustack.text import character_fault, printable

_HOST_LABEL = re.compile(r"(?!-)[A-Za-z0-9_-]{1,63}(?<!-)")
_WORKER_NAME = re.compile(r"[A-Za-z0-9]([A-Za-z0-9._-]{0,251}[A-Za-z0-9])?")
_IN_HEADER = re.compile(r"[!-~]*")
_ORIGIN = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*://[^/?#\s@]+/?")
_DATABASES = ("sqlite", "postgresql", "postgres", "mysql", "mariadb")
FEWEST_RAY_WORKER_PORTS = 16
_LONGEST_SHOWN = 300
"""Characters of a path in a sentence: a certificate may have been given in place of its path."""


def option_faults(options: Options, part: Role, *, platform: str) -> list[OptionFault]:
    """Everything wrong with ``options`` for a daemon of that role on ``platform`` (``sys.platform``).

    Looks at the files that options name (blocking), and at nothing else outside ``options``.
    """
    found = [
        *_combinations(options, part, platform),
        *_times(options),
        *_ports(options, part),
        *_urls(options),
    ]
    return [*found, *_values(options), *sign_on_faults(options), *_named_files(options)]


def _combinations(options: Options, part: Role, platform: str) -> Iterator[OptionFault]:
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
    if options.enable_ray and len(options.ray_worker_port_range) < FEWEST_RAY_WORKER_PORTS:
        yield OptionFault(
            ("ray_worker_port_range",),
            f"ray_worker_port_range must hold at least {FEWEST_RAY_WORKER_PORTS} ports, one for each process of Ray",
        )


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
    for name in (option.name for option in table(Options) if option.form == "http_url"):
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


def in_header(value: str) -> bool:
    """Whether a text can be a part of an HTTP header: printable ASCII without spaces."""
    return _IN_HEADER.fullmatch(value) is not None


def _values(options: Options) -> Iterator[OptionFault]:
    for name in (option.name for option in table(Options) if option.form == "header_value"):
        # The value stays out of the sentence: it is a secret.
        if not in_header(getattr(options, name) or ""):
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
    for word in options.engine_path:
        try:
            read_named_path(word)
        except ValueError as error:
            yield OptionFault(("engine_path",), f"engine_path {error}, not {quote(word)}")


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
    looks_numeric = re.fullmatch(r"[0-9.]+", text) is not None  # 10.0.0.300 is a mistyped address, not a name
    return not looks_numeric and len(text) <= 253 and all(map(_HOST_LABEL.fullmatch, labels))


def _named_files(options: Options) -> Iterator[OptionFault]:
    named: list[tuple[str, Path | None]] = [
        (option.name, getattr(options, option.name)) for option in table(Options) if option.form == "file"
    ]
    for name in KEPT:
        text = getattr(options, name)
        if text is not None and is_path(text):
            named.append((name, Path(text)))
    catalog = options.model_catalog_file
    if catalog is not None and not is_http_url(catalog):
        is_url = catalog.startswith("file:")
        named.append(("model_catalog_file", Path(unquote(urlsplit(catalog).path) if is_url else catalog)))
    for name, path in named:
        if path is not None and (sentence := file_fault(path)) is not None:
            yield OptionFault((name,), f"{name} names {sentence}")


def file_fault(path: Path) -> str | None:
    """Why the file at ``path`` cannot be read, or must not be trusted; completes "<option> names". Blocking."""
    if (sentence := absent_file(path)) is not None:
        return sentence
    if not os.access(path, os.R_OK):
        return f"{path}, which may not be read"
    exposure = writable_by_others(path)
    return None if exposure is None else f"a file that is not safe: {exposure}"


def absent_file(path: Path) -> str | None:
    """That there is no file at ``path`` that we may look at; completes "<option> names". Blocking."""
    try:
        if path.is_file():
            return None
        mode = path.stat().st_mode
    except PermissionError:
        what = "not ours to look at"
    except OSError:  # also for a name that the system does not take
        what = "not there"
    else:
        what = "a directory" if stat.S_ISDIR(mode) else "not a plain file"
    return f"{printable(path, _LONGEST_SHOWN)}, which is {what}"


def path_faults(options: Options, bad: set[str]) -> Iterator[str]:
    """Paths that JSON and databases cannot hold, a sentence each; options named in ``bad`` are left out.

    ``HOME`` and the working directory may be a part of a path, so that no single origin is to blame.
    """
    for option in table(Options):
        path = getattr(options, option.name)
        if option.name not in bad and isinstance(path, Path) and (fault := character_fault(str(path))):
            yield f"{option.name} {fault}; HOME and the working directory may be part of it"
