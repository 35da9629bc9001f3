"""Backends that administrators describe as data: what is wrong with one, and which of them a deployment runs."""

from __future__ import annotations

import re
from collections.abc import Iterable

import attrs

from gpustack.domain.backend import InferenceBackend, spec_of
from gpustack.domain.model import Model
from gpustack.errors import Invalid

from .custom import command_faults, health_path_faults
from .registry import engine_by_name, folded, unknown_backend

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9 ._+-]{0,99}")
_VERSION = re.compile(r"[A-Za-z0-9][A-Za-z0-9._+-]{0,99}")
_ENV_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_.-]*")


def faults_of(backend: InferenceBackend, others: Iterable[InferenceBackend] = ()) -> list[str]:
    """Everything that is wrong with a backend, a sentence each. ``others`` are those that there are already.

    Whether its metrics exist is known to ``metrics/``, and judged there.
    """
    faults = _name_faults(backend.name, others)
    if not backend.versions:
        faults.append(
            'versions: must have at least one, such as {"1.0": {"command": "my-server --port {port}"}}'
        )
    elif backend.default_version not in backend.versions:
        known = ", ".join(sorted(backend.versions))
        faults.append(f"default_version: {backend.default_version!r} is none of the versions ({known})")
    for name, version in backend.versions.items():
        at = f"versions.{name}"
        if not _VERSION.fullmatch(name):
            faults.append(
                f"{at}: a version is up to 100 letters, digits, dots, dashes, plus signs and underscores"
            )
        faults += [f"{at}.command: {fault}" for fault in command_faults(version.command)]
        faults += _env_faults(version.env, f"{at}.env")
    faults += _env_faults(backend.env, "env")
    faults += health_path_faults(backend.health_path)
    return faults


def _name_faults(name: str, others: Iterable[InferenceBackend]) -> list[str]:
    if not _NAME.fullmatch(name):
        return ["name: must be up to 100 letters, digits, blanks, dots, dashes, plus signs and underscores"]
    built_in = engine_by_name(name)
    if built_in is not None:
        return [f"name: {name!r} means the engine {built_in.wire_name!r}, which this version has"]
    return [
        f"name: {name!r} and {other.name!r} are one name: letter case, blanks and punctuation do not count"
        for other in others
        if folded(other.name) == folded(name) and other.name != name
    ]


def _env_faults(env: Iterable[str], at: str) -> list[str]:
    return [
        f"{at}: {name!r} is not a name of an environment variable"
        for name in env
        if not _ENV_NAME.fullmatch(name)
    ]


def settled(model: Model, backends: Iterable[InferenceBackend]) -> Model:
    """``model`` with ``backend`` as the API writes it, and with what the administrators' backend of that name says.

    Raises ``Invalid`` for a backend that is not known, and for a version that it does not have.
    """
    if not (model.backend or "").strip():
        return attrs.evolve(model, backend=None, backend_spec=None)
    given = str(model.backend)
    engine = engine_by_name(given)
    if engine is not None:
        return attrs.evolve(model, backend=engine.wire_name, backend_spec=None)
    described = list(backends)
    found = next((one for one in described if folded(one.name) == folded(given)), None)
    if found is None:
        raise unknown_backend(given, [one.name for one in described])
    version = model.backend_version or found.default_version
    if version not in found.versions:
        there = ", ".join(sorted(found.versions))
        raise Invalid(f"Backend {found.name!r} has no version {version!r}; it has {there}")
    return attrs.evolve(
        model,
        backend=found.name,
        backend_spec=spec_of(found, version),
        categories=model.categories or found.categories,
    )
