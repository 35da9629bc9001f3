"""The programs that make Python environments and install packages in them: pipx, uv, or our Python's venv and pip."""

from __future__ import annotations

import importlib.util
import os
import re
import shlex
import shutil
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Protocol

import attrs

from gpustack.config.proxy import environment_of_others, read_proxies
from gpustack.nursery.process import module_command

NO_INSTALLER = (
    "this Python has neither pip nor ensurepip, and neither uv nor pipx is on PATH: install one of them (on Debian: "
    "apt-get install python3-venv), or name pipx with --pipx-path"
)

_PASSED_ON = ("HOME", "LANG", "LC_ALL", "LD_LIBRARY_PATH", "LOGNAME", "NETRC", "PATH", "TZ", "USER")
_PASSED_ON_PREFIXES = ("CURL_", "PIP_", "REQUESTS_", "SSL_", "UV_", "XDG_")
_KEPT_BACK = frozenset(
    {
        *("PIP_PREFIX", "PIP_PYTHON", "PIP_REQUIREMENT", "PIP_REQUIRE_VIRTUALENV", "PIP_ROOT", "PIP_TARGET"),
        *("PIP_USER", "UV_PREFIX", "UV_PROJECT", "UV_PROJECT_ENVIRONMENT", "UV_PYTHON", "UV_SYSTEM_PYTHON"),
        "UV_TARGET",
    }
)
"""Settings of the operator that would put packages elsewhere than into the environment."""


@attrs.frozen(kw_only=True)
class PythonInstallation:
    """What is to be installed, and where. ``requirements`` has the engine first; ``suffix`` tells versions apart."""

    program: str
    requirements: tuple[str, ...]
    suffix: str
    folder: Path
    """Belongs to the installation alone. It need not exist."""


@attrs.frozen(kw_only=True)
class InstallCommand:
    """One command of an installation, and what its environment has beyond ``installer_environment``."""

    argv: tuple[str, ...]
    env: Mapping[str, str] = attrs.field(factory=dict)


class Installer(Protocol):
    """One way to make an environment. Commands only: whoever runs them sees to deadlines and to what is left behind."""

    @property
    def name(self) -> str:
        """Its name for people."""

    def commands(self, wanted: PythonInstallation) -> tuple[InstallCommand, ...]:
        """To be run one after the other, until one fails."""

    def program(self, wanted: PythonInstallation) -> Path:
        """Where the engine's program is afterwards."""


@attrs.frozen
class VenvInstaller:
    """``python -m venv`` and pip: our own, which need not be installed in each environment, else the one it brings."""

    has_pip: bool = True
    python: str = sys.executable
    name: str = "venv and pip"

    def commands(self, wanted: PythonInstallation) -> tuple[InstallCommand, ...]:
        folder = str(wanted.folder / "venv")
        inside = str(wanted.folder / "venv/bin/python")
        bare = ("--without-pip",) if self.has_pip else ()
        pip = (
            (*module_command("pip", python=self.python), "--python", inside)
            if self.has_pip
            else module_command("pip", python=inside)
        )
        return (
            InstallCommand(argv=(*module_command("venv", python=self.python), *bare, folder)),
            InstallCommand(argv=(*pip, "install", "--no-warn-script-location", *wanted.requirements)),
        )

    def program(self, wanted: PythonInstallation) -> Path:
        return wanted.folder / "venv/bin" / wanted.program


@attrs.frozen
class UvInstaller:
    """uv, which takes a tenth of pip's time."""

    path: str
    python: str = sys.executable
    name: str = "uv"

    def commands(self, wanted: PythonInstallation) -> tuple[InstallCommand, ...]:
        folder = str(wanted.folder / "venv")
        # In a folder of ours, so that no project's settings are found where the daemon happens to stand.
        uv = (self.path, "--directory", str(wanted.folder), "--no-progress")
        install = ("pip", "install", "--python", f"{folder}/bin/python")
        return (
            InstallCommand(argv=(*uv, "venv", "--python", self.python, folder)),
            InstallCommand(argv=(*uv, *install, *wanted.requirements)),
        )

    def program(self, wanted: PythonInstallation) -> Path:
        return wanted.folder / "venv/bin" / wanted.program


@attrs.frozen
class PipxFolders:
    """Where pipx puts environments (below ``home``) and links to their programs (``bin_dir``)."""

    home: Path
    bin_dir: Path

    def clear(self, package: str, suffix: str) -> None:
        """Remove the environment of a package, whole or not, and the links that lead into it. Blocking."""
        name = _plain(f"{package}_{suffix}")
        for venv in (self.home / "venvs").glob("[!.]*"):
            if _plain(venv.name) != name:
                continue
            for link in self.bin_dir.glob(f"*_{suffix}"):
                if link.is_symlink() and Path(os.path.realpath(link)).is_relative_to(os.path.realpath(venv)):
                    link.unlink(missing_ok=True)
            shutil.rmtree(venv, ignore_errors=True)


@attrs.frozen
class PipxInstaller:
    """pipx, as ``--pipx-path`` has always meant it: the program of a version is ``<bin-dir>/<program>_<version>``."""

    path: str
    folders: PipxFolders
    python: str = sys.executable
    name: str = "pipx"

    def commands(self, wanted: PythonInstallation) -> tuple[InstallCommand, ...]:
        engine, *beside = wanted.requirements
        more = ("--pip-args", shlex.join(beside)) if beside else ()
        options = ("--force", "--python", self.python, "--suffix", f"_{wanted.suffix}", *more)
        places = {
            "PIPX_HOME": str(self.folders.home),
            "PIPX_BIN_DIR": str(self.folders.bin_dir),
            "PIPX_MAN_DIR": str(self.folders.home / "man"),
        }
        return (InstallCommand(argv=(self.path, "install", *options, engine), env=places),)

    def program(self, wanted: PythonInstallation) -> Path:
        return self.folders.bin_dir / f"{wanted.program}_{wanted.suffix}"


def _plain(name: str) -> str:
    """The name as pipx writes it, whichever way: versions of pipx differ in this."""
    return re.sub(r"[-_.+]+", "-", name).lower()


def find_installer(
    pipx_path: Path | None, path_env: str, folders: PipxFolders, python: str = sys.executable
) -> Installer | None:
    """pipx as configured or on PATH, else uv, else our own venv and pip; ``None`` if there is none. Blocking."""
    pipx = str(pipx_path) if pipx_path is not None else _on_path("pipx", path_env, python)
    if pipx is not None:
        return PipxInstaller(pipx, folders, python)
    uv = _on_path("uv", path_env, python)
    if uv is not None:
        return UvInstaller(uv, python)
    has_pip = importlib.util.find_spec("pip") is not None
    if has_pip or importlib.util.find_spec("ensurepip") is not None:
        return VenvInstaller(has_pip, python)
    return None


def installer_environment(env: Mapping[str, str], scratch: Path) -> dict[str, str]:
    """What an installer gets of the daemon's environment: the operator's settings of pip and uv, proxies, no secrets
    of ours. ``scratch`` is its folder for temporary files, on the disk that is to be filled.

    Nothing is cached unless the operator says where: a cache would take as much again, and nobody would empty it.
    """
    passed = {
        name: value
        for name, value in environment_of_others(read_proxies(env), env).items()
        if name not in _KEPT_BACK
        and (name in _PASSED_ON or name.startswith(_PASSED_ON_PREFIXES) or name.upper().endswith("_PROXY"))
    }
    passed |= {
        "TMPDIR": str(scratch),
        "NO_COLOR": "1",
        "PYTHONUNBUFFERED": "1",
        "PIP_NO_INPUT": "1",
        "PIP_DISABLE_PIP_VERSION_CHECK": "1",
        "PIP_PROGRESS_BAR": "off",
        "PIP_ROOT_USER_ACTION": "ignore",
    }
    if "PIP_CACHE_DIR" not in passed:
        passed["PIP_NO_CACHE_DIR"] = "1"
    if "UV_CACHE_DIR" not in passed:
        passed["UV_NO_CACHE"] = "1"
    return passed


def _on_path(name: str, path_env: str, python: str) -> str | None:
    beside = Path(python).parent / name
    return shutil.which(name, path=path_env) or (str(beside) if os.access(beside, os.X_OK) else None)
