"""What finds and installs the engines of this machine, as the options say; the daemon and the doctor use the same."""

from __future__ import annotations

import logging
import os
from collections.abc import Mapping
from functools import partial
from pathlib import Path

from gpustack.artifacts.environment import PythonEnvironments
from gpustack.artifacts.installer import PipxFolders, find_installer
from gpustack.artifacts.tools import program_below
from gpustack.config.options import Options
from gpustack.config.value import read_named_path
from gpustack.engines.registry import engines
from gpustack.hardware.engine_build import BuildFinder

log = logging.getLogger(__name__)


def python_environments(options: Options, env: Mapping[str, str]) -> PythonEnvironments:
    """Where engines that are Python packages are installed by version, and how."""
    pipx = PipxFolders(options.data_dir / "pipx", options.bin_dir)
    search = env.get("PATH", os.defpath)
    return PythonEnvironments(
        options.data_dir / "venvs", pipx, partial(find_installer, options.pipx_path, search, pipx)
    )


def build_finder(options: Options, environments: PythonEnvironments) -> BuildFinder:
    """What finds the builds, with the paths that the options name."""
    return BuildFinder(
        tools=program_below(options.bin_dir),
        configured=configured_engines(options),
        environments=environments,
        lends=not options.disable_rpc_servers,
    )


def configured_engines(options: Options) -> dict[str, Path]:
    """The paths of ``--engine-path``, by the engine's name inside; a name that no engine has is told in the log."""
    found: dict[str, Path] = {}
    for name, path in map(read_named_path, options.engine_path):
        named = [one for one in engines() if name in (one.name.lower(), one.wire_name.lower())]
        if not named:
            log.warning("No engine is called %s, which engine_path names", name)
        found |= {one.name: path for one in named}
    return found
