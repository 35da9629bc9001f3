"""From argv, environment and YAML to one ``Configuration``, or to one error with everything that is wrong."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import attrs

from gpustack.config.argument import read_arguments
from gpustack.config.constraint import absent_file, in_header, option_faults, path_faults
from gpustack.config.converter import cleaned, convert
from gpustack.config.environment import Environment, foreign_variable_faults
from gpustack.config.file import read_file
from gpustack.config.layer import default_layer, environment_layer, legacy_layer, merge, written
from gpustack.config.machine_default import HostContext, absolute, settle
from gpustack.config.option import table
from gpustack.config.options import Options
from gpustack.config.origin import DEFAULT, ConfigError, ConfigFault, Layer, OptionFault, Origin, RawValue
from gpustack.config.permission import writable_by_others
from gpustack.config.role import Role, role
from gpustack.config.url import is_http_url
from gpustack.config.warning import exported_server_url, warnings
from gpustack.text import character_fault, trimmed


@attrs.frozen(kw_only=True)
class Configuration:
    """A usable configuration. ``origins`` says of each option where its value was written.

    ``notes`` are choices that were made for the user, ``warnings`` are what the user should change: log each once.
    ``own`` holds the flags that only ``gpustack config`` has.
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
    """Read the configuration of ``gpustack <command> *argv``. A flag overrides the environment, that the YAML file.

    ``platform`` is ``sys.platform``; ``euid`` None asks the system. Reads files (blocking) and writes nothing. Raises
    ConfigError with every fault. With ``--help`` in ``argv`` prints the help and raises SystemExit.
    """
    if euid is None and hasattr(os, "geteuid"):
        euid = os.geteuid()
    host = HostContext(platform=platform, env=env, cwd=cwd, euid=euid)
    arguments = read_arguments(argv, command)
    faults = list(arguments.faults)
    environment = environment_layer(Options, env)
    file = _file_layer(merge(environment, arguments.layer).get("config_file"), host, faults)
    layers = (default_layer(Options), legacy_layer(env), file, environment, arguments.layer)
    read = convert(Options, merge(*layers))
    faults += read.faults

    set_here = {option.name for option in written(table(Options), read.given)} - read.bad
    options, notes = settle(read.value, set_here, host)
    part = role(options)
    found = option_faults(options, part, platform=platform)
    faults += [_located(fault, read.given) for fault in found if not read.bad & set(fault.names)]
    faults += [ConfigFault(None, sentence) for sentence in path_faults(options, read.bad)]

    variables = convert(Environment, merge(default_layer(Environment), environment_layer(Environment, env)))
    faults += [*variables.faults, *foreign_variable_faults(env)]
    faults += _variable_faults(variables.value, variables.given)
    faults += _absent_certificates(env)
    if faults:
        raise ConfigError(tuple(faults))
    return Configuration(
        options=options,
        environment=variables.value,
        role=part,
        origins={name: value.origin for name, value in read.given.items()},
        warnings=warnings(options, part, read.given, variables.value, variables.given, env),
        notes=(*exported_server_url(options, read.given), *notes),
        own=arguments.own,
    )


def _file_layer(named: RawValue | None, host: HostContext, faults: list[ConfigFault]) -> Layer:
    """The values in the YAML file that ``config_file`` names; what is wrong with it is added to ``faults``."""
    if named is None:
        return {}
    (option,) = (one for one in table(Options) if one.name == "config_file")
    named, sentence = cleaned(option, named)
    if sentence is not None:
        return {}  # ``convert`` reports it
    path = absolute(Path(named.value), host)
    if (sentence := absent_file(path)) is not None:
        faults.append(ConfigFault(named.origin, f"config_file names {sentence}"))
        return {}
    if (exposure := writable_by_others(path)) is not None:
        faults.append(ConfigFault(named.origin, f"config_file names a file that is not safe: {exposure}"))
    layer, wrong = read_file(path, str(named.value))
    faults += wrong
    return layer


def _located(fault: OptionFault, given: Mapping[str, RawValue]) -> ConfigFault:
    origins = [given[name].origin for name in fault.names]
    return ConfigFault(next((origin for origin in origins if origin != DEFAULT), None), fault.sentence)


def _variable_faults(variables: Environment, given: Mapping[str, RawValue]) -> list[ConfigFault]:
    found = []
    for option in table(Environment):
        value = getattr(variables, option.name)
        if option.form == "http_url" and value is not None and not is_http_url(value):
            sentence = f"must be a URL such as {option.sample}"
            found.append(ConfigFault(given[option.name].origin, sentence))
        if option.form == "header_value" and value is not None and not in_header(value):
            sentence = "takes letters, digits and signs of ASCII, without spaces"
            found.append(ConfigFault(given[option.name].origin, sentence))
    return found


def _absent_certificates(env: Mapping[str, str]) -> list[ConfigFault]:
    """HTTP libraries read SSL_CERT_FILE themselves, and every call would fail."""
    named = trimmed(env.get("SSL_CERT_FILE", ""))
    if not named or character_fault(named) or (sentence := absent_file(Path(named))) is None:
        return []
    sentence = f"names {sentence}; without it the system's certificates are trusted"
    return [ConfigFault(Origin("environment", "SSL_CERT_FILE"), sentence)]
