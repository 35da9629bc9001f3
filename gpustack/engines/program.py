"""The program of an engine: its name, the Python package it comes from, and what a deployment asks of that.

A module of this folder that describes an engine may have a ``PROGRAM``. From it derives where builds of that engine are
found on a worker (``gpustack/hardware/engine_build.py``), and how a worker installs a version of its own
(``gpustack/worker/engine_environment.py``).
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from functools import cache

import attrs

from gpustack.domain.model import Model
from gpustack.domain.unit import GIB
from gpustack.plugins import siblings

REQUIREMENTS = "GPUSTACK_BACKEND_DEPS"
"""Variable of a deployment: requirements, between commas, for an environment that holds the engine."""

_VERSION = re.compile(r"[0-9][0-9A-Za-z.!+_-]{0,63}")
_REQUIREMENT = re.compile(
    r"[A-Za-z0-9][A-Za-z0-9._-]*\s*(\[[A-Za-z0-9._,\s-]*\])?"  # name and extras
    r"(\s*(===|==|~=|!=|<=|>=|<|>)\s*[A-Za-z0-9.*+!_-]+(\s*,\s*(===|==|~=|!=|<=|>=|<|>)\s*[A-Za-z0-9.*+!_-]+)*)?"
)
_CONTINUES = re.compile(r"\s*(===|==|~=|!=|<=|>=|<|>)")
_MOST_REQUIREMENTS = 64
_LONGEST_REQUIREMENT = 200


@attrs.frozen(kw_only=True)
class PythonPackage:
    """What is installed for an engine in an environment of its own.

    ``default_version`` is taken where a deployment names none and the worker has no build of its own; without one such
    a worker has no build. ``drives`` are the device types that the package of the index is built for. ``disk`` is what
    an environment takes, in bytes, with room for what is unpacked meanwhile. ``pins`` are requirements for versions up
    to the one named; the first that covers a version holds.
    """

    name: str
    extras: tuple[str, ...] = ()
    default_version: str | None = None
    drives: tuple[str, ...] = ()
    disk: int = 8 * GIB
    beside: tuple[str, ...] = ()
    """Requirements of every version."""
    pins: tuple[tuple[str, tuple[str, ...]], ...] = ()
    systems: tuple[str, ...] = ("Linux",)
    machines: tuple[str, ...] = ("x86_64", "aarch64")

    def requirement(self, version: str) -> str:
        """The requirement of exactly that version."""
        extras = f"[{','.join(self.extras)}]" if self.extras else ""
        return f"{self.name}{extras}=={version}"

    def requirements(self, version: str, wanted: tuple[str, ...]) -> tuple[str, ...]:
        """All that is installed: that version, and what a deployment ``wanted`` beside it in place of the pins."""
        if wanted:
            return (self.requirement(version), *wanted)
        release = _release(version)
        pins = next((pins for last, pins in self.pins if release <= _release(last)), ())
        return (self.requirement(version), *self.beside, *pins)


@attrs.frozen(kw_only=True)
class EngineProgram:
    """The program of an engine, as it is called on PATH, and how a build of it is asked for what it can do.

    With a ``package`` it is a console script: its Python is asked for the version and for the device types that its
    torch is built for. Without, it is run with ``version_arguments``, and ``drives`` what is written here.
    """

    name: str
    package: PythonPackage | None = None
    version_arguments: tuple[str, ...] = ("--version",)
    version_file: str | None = None
    """Where the version stands, relative to the program's folder: of one that must not be run to be asked."""
    places: tuple[str, ...] = ()
    """Folders where its installer puts it, beside those of PATH."""
    drives: tuple[str, ...] = ()
    on_cpu: bool = True
    """Whether a build that drives devices also runs where there are none."""
    advice: str = ""
    """How to get a build for devices that the package of the index is not built for; a clause without a full stop."""


@cache
def programs() -> Mapping[str, EngineProgram]:
    """The programs of the engines of this folder, by the engine's name."""
    found = (module for module in siblings(__package__) if hasattr(module, "PROGRAM"))
    return {module.ENGINE.name: module.PROGRAM for module in found}


def version_of(text: str | None) -> str | None:
    """A version as a deployment names it, without a leading ``v``; ``None`` for an empty one."""
    bare = (text or "").strip()
    return (bare[1:] if bare[:1] in "vV" and bare[1:2].isdigit() else bare) or None


def requirements_of(model: Model, program: EngineProgram | None) -> tuple[str, ...]:
    """The requirements that the deployment has for an environment of its own; none where the engine has no package."""
    if program is None or program.package is None:
        return ()
    return requirements_in(model.env.get(REQUIREMENTS, ""))


def requirements_in(text: str) -> tuple[str, ...]:
    """The requirements in a list between commas. A comma within one (``a>=1,<2``) does not divide it."""
    found: list[str] = []
    depth = 0
    for part in text.split(","):
        if found and (depth > 0 or _CONTINUES.match(part)):
            found[-1] += f",{part}"
        else:
            found.append(part)
        depth += part.count("[") - part.count("]")
    return tuple(stripped for part in found if (stripped := " ".join(part.split())))


def environment_faults(model: Model, program: EngineProgram | None) -> list[str]:
    """What is wrong with the version and the requirements that a deployment names, a sentence each."""
    if program is None or program.package is None:
        return []
    version, wanted = version_of(model.backend_version), requirements_of(model, program)
    faults = []
    if version is not None and not _VERSION.fullmatch(version):
        faults.append(f"backend_version {version[:80]!r} is not a version such as 0.11.0")
    if len(wanted) > _MOST_REQUIREMENTS:
        faults.append(f"{REQUIREMENTS} names more than {_MOST_REQUIREMENTS} requirements")
    for one in wanted[:_MOST_REQUIREMENTS]:
        if len(one) > _LONGEST_REQUIREMENT or not _REQUIREMENT.fullmatch(one):
            faults.append(
                f"{REQUIREMENTS} has {one[:80]!r}, which is no requirement such as transformers==4.53.3 (options of "
                "pip and addresses are not taken: the worker's PIP_* and UV_* variables say where packages come from)"
            )
    return faults


def environment_name(version: str, wanted: tuple[str, ...]) -> str:
    """The name of the environment of a version with what a deployment ``wanted``; the same for the same."""
    if not wanted:
        return version
    return f"{version}-{hashlib.sha256(','.join(sorted(wanted)).encode()).hexdigest()[:8]}"


def _release(version: str) -> tuple[int, ...]:
    """The numbers at the beginning of a version, to compare: ``0.10.0rc1`` is as 0.10.0."""
    found = re.match(r"\d+(?:\.\d+)*", version)
    numbers = [int(part) for part in found[0].split(".")] if found else []
    while numbers and numbers[-1] == 0:
        numbers.pop()
    return tuple(numbers)
