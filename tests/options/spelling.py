"""The three spellings of an option: the same values as flags, as an environment, and as a YAML file."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import yaml

from gpustack.config.option import Option, table
from gpustack.config.options import Options

SPELLINGS = ("flag", "environment", "file")


def shortly(kept: str) -> list[Any]:
    """The spellings as parameters, of which CI takes one and ``make test-slow`` the others: for tests that start much.

    That all three lead to the same options is shown by ``tests/config``.
    """
    return [pytest.param(one, marks=[pytest.mark.slow] * (one != kept)) for one in SPELLINGS]


BY_NAME: Mapping[str, Option] = {option.name: option for option in table(Options)}


def spelled(spelling: str, folder: Path, values: Mapping[str, Any]) -> tuple[tuple[str, ...], dict[str, str]]:
    """Arguments and environment that give ``values``; options that have no flag are in the environment then."""
    if spelling == "file":
        path = folder / "options.yaml"
        path.write_text(yaml.safe_dump({name: _plain(value) for name, value in values.items()}))
        return ("--config-file", str(path)), {}
    arguments: list[str] = []
    env: dict[str, str] = {}
    for name, value in values.items():
        flag = BY_NAME[name].flag
        if spelling == "environment" or flag is None:
            env[BY_NAME[name].env] = _text(value)
        elif value is True:
            arguments.append(flag)
        else:
            for one in value if isinstance(value, list) else [value]:
                arguments += [flag, _text(one)]
    return tuple(arguments), env


def _plain(value: Any) -> Any:
    return str(value) if isinstance(value, Path) else value


def _text(value: Any) -> str:
    return json.dumps(value) if isinstance(value, bool | list | dict) else str(value)
