"""A backend that an administrator described: an engine as data, and what of it a deployment runs."""

from __future__ import annotations

from collections.abc import Mapping

import attrs

from .record import Record, stored


@attrs.frozen(kw_only=True)
class BackendVersion:
    """One version of a backend: its command template, and the environment that it has beside the backend's."""

    command: str
    env: Mapping[str, str] = attrs.field(factory=dict)


@stored("inference_backends", unique=(("name",),))
@attrs.frozen(kw_only=True)
class InferenceBackend(Record):
    """An engine that needs no code. ``categories`` are what its models answer, where a deployment does not say.

    ``metrics`` maps families of the engine to ours; ``install`` tells people what a worker must have.
    """

    name: str
    description: str | None = None
    versions: Mapping[str, BackendVersion]
    default_version: str
    env: Mapping[str, str] = attrs.field(factory=dict)
    health_path: str | None = None
    categories: tuple[str, ...] = ()
    metrics: Mapping[str, str] = attrs.field(factory=dict)
    install: str | None = None


@attrs.frozen(kw_only=True)
class BackendSpec:
    """What one version of a backend said when a deployment took it.

    It is copied into the deployment, so that a change of the backend reaches running engines only with a new
    generation, and a worker needs no more than its assignment.
    """

    backend: str
    version: str
    command: str
    env: Mapping[str, str] = attrs.field(factory=dict)
    health_path: str | None = None
    metrics: Mapping[str, str] = attrs.field(factory=dict)
    install: str | None = None


def spec_of(backend: InferenceBackend, version: str) -> BackendSpec:
    """One version of a backend, complete. Raises KeyError."""
    chosen = backend.versions[version]
    return BackendSpec(
        backend=backend.name,
        version=version,
        command=chosen.command,
        env={**backend.env, **chosen.env},
        health_path=backend.health_path,
        metrics=backend.metrics,
        install=backend.install,
    )
