"""From argv, environment and YAML to one ``Options``, or to one error that tells everything wrong."""

from __future__ import annotations

import os
import stat
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

import attrs

from gpustack.config.argument import read_arguments
from gpustack.config.clean import clean, cleaned, path_faults, variable_faults
from gpustack.config.constraint import OptionFault, is_http_url, problems
from gpustack.config.converter import structure
from gpustack.config.environment import Environment
from gpustack.config.file import read_file
from gpustack.config.layer import (
    default_layer,
    environment_layer,
    legacy_layer,
    merge,
    unknown_variables,
    written,
)
from gpustack.config.machine_default import HostContext, absolute, settle
from gpustack.config.option import Option, mask_url, table
from gpustack.config.options import Options
from gpustack.config.origin import DEFAULT, ConfigError, ConfigFault, Layer, Origin, RawValue
from gpustack.config.permission import readable, writable
from gpustack.config.proxy import exempted_to_others, read_proxies
from gpustack.config.role import Role, idle_group, role
from gpustack.config.saml import KEPT, is_path
from gpustack.config.secret import SHORTEST, short
from gpustack.config.sign_on import open_callbacks
from gpustack.config.value import old_keys_of_system_reserved
from gpustack.text import character_fault, printable, trimmed

_LONGEST_SHOWN = 300
_FILES = ("ssl_keyfile", "ssl_certfile", "llama_server_path", "pipx_path")


@attrs.frozen(kw_only=True)
class Configuration:
    """A usable configuration, and what to tell about it.

    ``notes`` are choices made for the user, ``warnings`` are what they should change: log each once. ``own``
    holds the flags that only ``gpustack config`` has.
    """

    options: Options
    environment: Environment
    role: Role
    origins: Mapping[str, Origin]
    warnings: tuple[str, ...]
    notes: tuple[str, ...]
    own: Mapping[str, Any]


def load(
    argv: Sequence[str],
    env: Mapping[str, str],
    *,
    platform: str,
    cwd: Path,
    euid: int | None = None,
    command: str = "start",
) -> Configuration:
    """Read the configuration of ``gpustack <command> *argv``; flag over environment over YAML over default.

    ``euid`` None asks the system. Blocking file reads, nothing is written. Raises ConfigError with every
    fault; with ``--help`` in ``argv`` prints the usage and raises SystemExit.
    """
    if euid is None and hasattr(os, "geteuid"):
        euid = os.geteuid()
    host = HostContext(platform=platform, env=env, cwd=cwd, euid=euid)
    arguments = read_arguments(argv, command)
    faults = list(arguments.faults)
    environment = environment_layer(Options, env)
    file = _file_layer(merge(environment, arguments.layer).get("config_file"), host, faults)
    given = merge(default_layer(Options), legacy_layer(env), file, environment, arguments.layer)
    given, unclean, bad = clean(Options, given)
    read, wrong, misread = structure(Options, given)
    faults += [*unclean, *wrong]
    bad |= misread

    set_here = written(table(Options), given)
    options, notes = settle(read, {option.name for option in set_here} - bad, host)
    part = role(options)
    found = [*problems(options, part, platform=platform), *_absent_files(options)]
    faults += [_fault(problem, given) for problem in found if not bad & set(problem.names)]
    faults += path_faults(options, bad)

    others = merge(default_layer(Environment), environment_layer(Environment, env))
    others, unclean, _ = clean(Environment, others)
    variables, wrong, _ = structure(Environment, others)
    faults += [*unclean, *wrong, *variable_faults(env)]
    if variables.hf_endpoint is not None and not is_http_url(variables.hf_endpoint):
        faults.append(
            ConfigFault(others["hf_endpoint"].origin, "must be a URL such as https://hf-mirror.com")
        )
    faults += _absent_certificates(env)
    if faults:
        raise ConfigError(tuple(faults))
    return Configuration(
        options=options,
        environment=variables,
        role=part,
        origins={name: value.origin for name, value in given.items()},
        warnings=_warnings(options, part, given, variables, others, env),
        notes=(*_exported(options, given), *notes),
        own=arguments.own,
    )


def _file_layer(named: RawValue | None, host: HostContext, faults: list[ConfigFault]) -> Layer:
    if named is None:
        return {}
    (option,) = (one for one in table(Options) if one.name == "config_file")
    named, sentence = cleaned(option, named)
    if sentence is not None:
        return {}  # told with the others
    path = absolute(Path(named.value), host)
    if not _is_file(path):
        faults.append(ConfigFault(named.origin, f"config_file names {_shown(path)}, which is {_what(path)}"))
        return {}
    if (way := writable(path)) is not None:
        faults.append(ConfigFault(named.origin, f"config_file names a file that is not safe: {way}"))
    layer, wrong = read_file(path, str(named.value))
    faults += wrong
    return layer


def _absent_certificates(env: Mapping[str, str]) -> list[ConfigFault]:
    """Libraries read the variable by themselves, and each call would fail for it."""
    named = trimmed(env.get("SSL_CERT_FILE", ""))
    if not named or character_fault(named) or _is_file(Path(named)):
        return []
    which = f"{_shown(Path(named))}, which is {_what(Path(named))}"
    sentence = f"names {which}; without it the system's certificates are trusted"
    return [ConfigFault(Origin("environment", "SSL_CERT_FILE"), sentence)]


def _is_file(path: Path) -> bool:
    """Whether there is a file that we may look at; a name that the system does not take is none."""
    try:
        return path.is_file()
    except OSError:
        return False


def _shown(path: Path) -> str:
    """What was meant for something else, such as a certificate itself, is not shown as a whole."""
    return printable(path, _LONGEST_SHOWN)


def _what(path: Path) -> str:
    try:
        mode = path.stat().st_mode
    except PermissionError:
        return "not ours to look at"
    except OSError:
        return "not there"
    return "a directory" if stat.S_ISDIR(mode) else "not a plain file"


def _absent_files(options: Options) -> list[OptionFault]:
    paths: list[tuple[str, Path | None]] = [(name, getattr(options, name)) for name in _FILES]
    for name in KEPT:
        text = getattr(options, name)
        if text is not None and is_path(text):
            paths.append((name, Path(text)))
    catalog = options.model_catalog_file
    if catalog is not None and not is_http_url(catalog):
        is_url = catalog.startswith("file:")
        paths.append(("model_catalog_file", Path(unquote(urlsplit(catalog).path) if is_url else catalog)))
    found = []
    for name, path in paths:
        if path is None:
            continue
        if not _is_file(path):
            found.append(OptionFault((name,), f"{name} names {_shown(path)}, which is {_what(path)}"))
        elif not os.access(path, os.R_OK):
            found.append(OptionFault((name,), f"{name} names {path}, which may not be read"))
        elif (way := writable(path)) is not None:
            found.append(OptionFault((name,), f"{name} names a file that is not safe: {way}"))
    return found


def _fault(problem: OptionFault, given: Mapping[str, RawValue]) -> ConfigFault:
    origins = [given[name].origin for name in problem.names]
    return ConfigFault(next((origin for origin in origins if origin != DEFAULT), None), problem.sentence)


def _bare(options: Options, given: Mapping[str, RawValue], set_here: Sequence[Option]) -> list[str]:
    """Files with secrets that others can read."""
    in_file = any(given[one.name].origin.kind == "file" and _hides(one, options) for one in set_here)
    files = (options.config_file if in_file else None, options.ssl_keyfile)
    return [str(way) for path in files if path is not None and (way := readable(path)) is not None]


def _weak(options: Options, part: Role, given: Mapping[str, RawValue]) -> list[str]:
    """Secrets that are short. A worker's token is its server's to choose."""
    if part == "worker":
        return []
    names = short({name: getattr(options, name) for name in SHORTEST})
    return [f"{name} ({given[name].origin}, {SHORTEST[name]} for a new one)" for name in names]


def _hides(option: Option, options: Options) -> bool:
    """Whether the value is a secret, or has one in it."""
    value = getattr(options, option.name)
    return option.mask is not None and option.mask(value) != value


def _exported(options: Options, given: Mapping[str, RawValue]) -> tuple[str, ...]:
    """The variable is also where commands talk to: who has exported it for them may not mean a worker."""
    origin = given["server_url"].origin
    if options.server_url is None or origin.kind not in ("environment", "legacy"):
        return ()
    url = mask_url(options.server_url)
    return (f"{origin} is set, so this is a worker of {url} and no server: unset it to start a server.",)


def _warnings(
    options: Options,
    part: Role,
    given: Mapping[str, RawValue],
    variables: Environment,
    others: Mapping[str, RawValue],
    env: Mapping[str, str],
) -> tuple[str, ...]:
    """One sentence for each kind of thing that does not do what it looks like."""
    set_here = written(table(Options), given)
    unbuilt = [
        f"{option.name} ({given[option.name].origin})"
        for option in set_here
        if not option.takes_effect(getattr(options, option.name))
    ]
    # Only our own variables: CUDA_VERSION and the like are set by images that know nothing of us.
    unbuilt += [
        option.env
        for option in written(table(Environment), others)
        if option.env.startswith("GPUSTACK_") and not option.takes_effect(getattr(variables, option.name))
    ]
    idle = [
        f"{option.name} ({given[option.name].origin})"
        for option in set_here
        if option.group == idle_group(part)
        and option.name not in ("disable_worker", "server_url", "disable_metrics")
    ]
    old = [str(value.origin) for value in given.values() if value.origin.kind == "legacy"]
    if given["system_reserved"].origin != DEFAULT:
        old += old_keys_of_system_reserved(given["system_reserved"].value)
    cookies = []
    if options.enable_cors and options.allow_credentials and "*" in options.allow_origins:
        cookies = [f"allow_credentials ({given['allow_credentials'].origin})"]
    proxies = read_proxies(env)
    _, lost = exempted_to_others(proxies)
    unheard = lost if options.enable_hf_xet and proxies.proxies else []
    open_ways = [f"{name} ({given[name].origin})" for name in open_callbacks(options)]
    told = (
        ("Set, but without effect in this version", unbuilt),
        (f"Set, but without effect on a {part} without a {idle_group(part)}", idle),
        (
            "Without effect until allow_origins names origins (no cookies go to whom everybody may ask)",
            cookies,
        ),
        ("Not https, so that who listens on the way can sign in as whom they hear", open_ways),
        ("Deprecated spellings that will go (use GPUSTACK_ variables, and ram and vram)", old),
        ("Entries of NO_PROXY that the Xet client does not know, so that it asks the proxy there", unheard),
        ("Secrets lie where others read", _bare(options, given, set_here)),
        ("With fewer characters than a new one may have, and so sooner guessed", _weak(options, part, given)),
        ("Variables that nothing reads", unknown_variables(env)),
    )
    return (
        *(f"{fault}." for fault in proxies.faults),
        *(f"{sentence}: {', '.join(names)}." for sentence, names in told if names),
    )
