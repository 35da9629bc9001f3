"""The configuration as text: a table of values and origins, a YAML file, an environment file, or the docs page.

The only renderer of options: ``gpustack config``, the debug log of a start, ``docs/options.md`` and the environment
file of the systemd units all come from here.
"""

from __future__ import annotations

import json
import re
import textwrap
from collections.abc import Iterable, Mapping
from typing import Any

import attrs

from gpustack.config.environment import CommandVariables, Environment, ModelVariables
from gpustack.config.loader import Configuration
from gpustack.config.option import Option, table
from gpustack.config.options import Options
from gpustack.config.origin import DEFAULT
from gpustack.config.resource_block import ResourceBlock, read_resources
from gpustack.config.value import SystemReservedGib, read_object, read_words, trim

_TITLES = {"common": "Common options", "server": "Server options", "worker": "Worker options"}
_WIDTH = 100
_FILE = "/path/to/file"


def effective(loaded: Configuration) -> str:
    """Every option with its value, secrets masked, and its origin, in columns."""
    rows = [("OPTION", "VALUE", "ORIGIN")]
    for option in table(Options):
        value = getattr(loaded.options, option.name)
        rows.append((option.name, option.show(value) or "-", str(loaded.origins[option.name])))
    first = max(len(row[0]) for row in rows)
    second = min(max(len(row[1]) for row in rows), 48)
    lines = [f"{name:{first}}  {value:{second}}  {origin}" for name, value, origin in rows]
    return "\n".join([f"role: {loaded.role}", "", *lines, ""])


def yaml_file(loaded: Configuration | None = None) -> str:
    """A YAML file with every option; those that ``loaded`` sets are active, the others commented out.

    Secrets always stay commented out, with a placeholder for the value.
    """
    lines = ["# GPUStack configuration: gpustack start --config-file THIS_FILE", ""]
    for title, options in _groups():
        lines += [f"# {title}", ""]
        for option in options:
            if option.name == "config_file":
                continue
            lines += _commented(option)
            lines += [_line(option, loaded, lambda option, value: f"{option.name}: {_yaml(value)}"), ""]
    return "\n".join(lines).rstrip() + "\n"


def env_file(loaded: Configuration | None = None) -> str:
    """An environment file in the form that systemd and container runtimes read, with the variables that are no options.

    Which lines are active is as in ``yaml_file``.
    """
    lines = [
        "# Environment of GPUStack, read by its systemd units.",
        "# A flag wins over a variable, a variable over the YAML file. An empty variable counts as not set.",
        "# Lists are JSON, or words between commas.",
        "",
    ]
    for title, options in _groups():
        lines += [f"# {title}", ""]
        for option in options:
            lines += _commented(option)
            lines += [_line(option, loaded, lambda option, value: f"{option.env}={_env(value)}"), ""]
    lines += ["# Other variables", ""]
    for option in table(Environment):
        lines += _commented(option)
        lines += [f"#{option.env}={_env(_stand_in(option))}", ""]
    return "\n".join(lines).rstrip() + "\n"


def _groups(*, hidden: bool = True) -> Iterable[tuple[str, list[Option]]]:
    for group, title in _TITLES.items():
        found = [option for option in table(Options) if option.group == group]
        yield title, [option for option in found if hidden or not option.hidden]


def _line(option: Option, loaded: Configuration | None, write: Any) -> str:
    if loaded is None or loaded.origins[option.name] == DEFAULT or option.mask is not None:
        return f"#{write(option, _stand_in(option))}"
    return str(write(option, getattr(loaded.options, option.name)))


def _stand_in(option: Option) -> Any:
    """The default, or the sample where the default cannot be written as a value."""
    if option.default is not None and option.default != () and option.mask is None:
        return option.default
    sample = option.sample.replace("{file}", _FILE)
    if option.repeated:
        return read_words(sample)
    if option.type == ResourceBlock | None:
        return read_resources(sample)
    return read_object(sample) if option.metavar == "JSON" else sample


def _commented(option: Option) -> list[str]:
    told = [option.help, f"Default: {option.default_text}."]
    if lack := _lack(option):
        told.append(lack)
    return [f"# {line}" for line in textwrap.wrap(" ".join(told), _WIDTH - 2, break_on_hyphens=False)]


def _lack(option: Option) -> str:
    """The sentence for an option that has no effect in this version, or not for all values; else empty."""
    if callable(option.built):
        return "" if option.built(option.sample) else "Without effect in this version for some values."
    return "" if option.built else "Without effect in this version."


def _json(value: Any) -> str | None:
    """``value`` as JSON where it is more than one plain text, else ``None``."""
    if isinstance(value, tuple | dict):
        return json.dumps(value)
    return str(value) if isinstance(value, SystemReservedGib | ResourceBlock) else None


def _plain(value: Any) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    return str(trim(value)) if isinstance(value, float) else str(value)


def _yaml(value: Any) -> str:
    """``value`` on one line of YAML. What is not a plain word is written as JSON, which is YAML too."""
    written = _json(value)
    if written is None:
        written = _plain(value)
        plain = re.fullmatch(r"[A-Za-z0-9/_][A-Za-z0-9/_.+-]*(://[A-Za-z0-9/_.:-]*[A-Za-z0-9/])?", written)
        if not plain or written.lower() == "null":
            written = json.dumps(written)
    return written


def _env(value: Any) -> str:
    """``value`` as it stands after the = in an environment file: quoted unless it is a plain word."""
    written = _json(value) or _plain(value)
    if re.fullmatch(r"[A-Za-z0-9/_.:,@%+-]*", written):
        return written
    if "'" not in written:
        return f"'{written}'"
    return '"' + re.sub(r'([\\"$`])', r"\\\1", written) + '"'


_HEAD = """\
# Options of `gpustack start`

```text
gpustack start [OPTIONS]
```

Every option can be written in three places. Where it is in several, the first of these wins:

1. a flag, such as `--data-dir /srv/gpustack`
2. an environment variable, such as `GPUSTACK_DATA_DIR=/srv/gpustack`; an empty one counts as not set
3. the YAML file that `--config-file` names, such as `data_dir: /srv/gpustack`; a key that is null takes no part
4. its default

A flag that takes no value is on when it is given; `--debug=false` turns it off, also over the environment and
the file. Truth is `true`, `1`, `yes` or `on`, and `false`, `0`, `no` or `off`.
A list is written by repeating its flag; in the environment it is a JSON array, or words between commas.
White space at both ends of a value is no part of it. Other control characters, and line breaks where a value is no PEM
or JSON, are a fault.

`gpustack config` takes the same flags and prints every value with its origin, secrets masked.
`gpustack config --format yaml` and `--format env` write the files in which options can be kept.
What is wrong with a configuration is told all at once, and `gpustack start` then exits with status 2.
"""

_RESOURCES = """\
## The resources block

`resources` in the YAML file says what a worker has, in place of detection. Every part may be left out and is then
detected; sizes are bytes. In a device, `type` follows from `vendor` (NVIDIA cuda, Moore Threads musa, Apple mps,
Huawei npu, AMD rocm, Hygon dcu, Iluvatar corex, Cambricon mlu, Intel xpu, MetaX maca,
T-Head ppu) and `device_index` from `index`.

```yaml
resources:
  cpu: {total: 16}
  memory: {total: 68719476736, is_unified_memory: false}
  swap: {total: 0}
  filesystem:
    - {name: data, mount_point: /, mount_from: /dev/sda1, total: 1099511627776}
  os: {name: Debian, version: "12"}
  kernel: {name: Linux, release: 6.1.0, version: "1", architecture: x86_64}
  uptime: {uptime: 3600, boot_time: "2025-01-01T00:00:00Z"}
  gpu_devices:
    - name: NVIDIA H200
      vendor: NVIDIA
      index: 0
      device_index: 0
      device_chip_index: 0
      memory: {total: 150754820096, is_unified_memory: false}
      type: cuda
      network: {status: up, inet: 10.0.0.1, netmask: 255.255.255.0, mac: "00:00:00:00:00:01",
                gateway: 10.0.0.254, iface: eth0, mtu: 1500}
```
"""


def markdown(proofs: Mapping[str, str] | None = None) -> str:
    """The docs page of the options and variables.

    ``proofs`` gives the id of the test that shows the effect of an option or variable, by name (for variables of a
    model by the variable itself); with it every row names that test.
    """
    parts = [_HEAD]
    for title, options in _groups(hidden=False):
        parts.append(_options_table(title, options, proofs))
    rare = [option for option in table(Options) if option.hidden]
    parts.append(_options_table("Rarely needed options", rare, proofs))
    parts.append(_variables_table("Other environment variables", table(Environment), proofs))
    parts.append(
        _names_table(
            "Variables of a model", "Set these in the environment of a model.", ModelVariables, proofs
        )
    )
    parts.append(
        _names_table("Variables of other commands", "`gpustack start` passes these over.", CommandVariables)
    )
    parts += [_RESOURCES, f"## A configuration file\n\n```yaml\n{yaml_file()}```\n"]
    return "\n".join(parts)


def _options_table(title: str, options: Iterable[Option], proofs: Mapping[str, str] | None) -> str:
    lines = _table_head(title, "Flag", "Environment", "Default", "Meaning", proofs=proofs)
    for option in options:
        flag = f"{option.flag}" if option.boolean else f"{option.flag} {option.metavar}"
        short = f"`{option.short}`, " if option.short else ""
        where = f"{short}`{flag}`" if option.flag else f"no flag, YAML key `{option.name}`"
        cells = (where, _spellings(option), _cell_default(option), _meaning(option))
        lines.append(_row(*cells, *_shown_by(option.name, proofs)))
    return "\n".join([*lines, ""])


def _variables_table(title: str, options: Iterable[Option], proofs: Mapping[str, str] | None) -> str:
    lines = _table_head(title, "Variable", "Default", "Meaning", proofs=proofs)
    for option in options:
        cells = (_spellings(option), _cell_default(option), _meaning(option))
        lines.append(_row(*cells, *_shown_by(option.name, proofs)))
    return "\n".join([*lines, ""])


def _names_table(
    title: str, told: str, cls: type[attrs.AttrsInstance], proofs: Mapping[str, str] | None = None
) -> str:
    first, *lines = _table_head(title, "Variable", "Meaning", proofs=proofs)
    rows = (_row(f"`{one.env}`", one.help, *_shown_by(one.env, proofs)) for one in table(cls))
    return "\n".join([first, "", told, *lines, *rows, ""])


def _table_head(title: str, *columns: str, proofs: Mapping[str, str] | None) -> list[str]:
    every = columns if proofs is None else (*columns, "Shown by")
    return [f"## {title}", "", _row(*every), _row(*("---" for _ in every))]


def _spellings(option: Option) -> str:
    return ", ".join(f"`{name}`" for name in (option.env, *option.aliases))


def _shown_by(name: str, proofs: Mapping[str, str] | None) -> tuple[str, ...]:
    """The last cell of a row, where the table has the column "Shown by"."""
    if proofs is None:
        return ()
    return (f"`{proofs[name]}`" if name in proofs else "nothing yet",)


def _row(*cells: str) -> str:
    return f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in cells)} |"


def _cell_default(option: Option) -> str:
    if option.shown:
        return option.shown.replace("<", "&lt;").replace(">", "&gt;")
    shown = option.show(option.default)
    return f"`{shown}`" if shown else "none"


def _meaning(option: Option) -> str:
    told = option.help.replace("<", "&lt;").replace(">", "&gt;")
    lack = _lack(option)
    return f"{told} *{lack}*" if lack else told
