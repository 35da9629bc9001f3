"""The catalog: models that users can choose from, each with the deployments that it offers."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import attrs


@attrs.frozen(kw_only=True)
class Template:
    """Fields of a deployment with ``{size}`` and ``{quantization}`` in its texts, for some sizes and quantizations."""

    fields: Mapping[str, Any]
    sizes: tuple[float, ...] = ()
    """Empty: all sizes of its model set."""
    quantizations: tuple[str, ...] = ()


@attrs.frozen(kw_only=True)
class ModelSpec:
    """One deployment that a model set offers. Sizes are in billions of parameters."""

    fields: Mapping[str, Any]
    size: float | None = None
    quantization: str | None = None


@attrs.frozen(kw_only=True)
class ModelSet:
    """A family of models. ``id`` is its position in the catalog, counted from 1."""

    id: int = 0
    name: str
    description: str | None = None
    home: str | None = None
    icon: str | None = None
    categories: tuple[str, ...] = ()
    capabilities: tuple[str, ...] = ()
    sizes: tuple[float, ...] = ()
    licenses: tuple[str, ...] = ()
    release_date: str | None = None
    order: float | None = None
    quantizations: tuple[str, ...] = ()
    templates: tuple[Template, ...] = ()

    @property
    def specs(self) -> tuple[ModelSpec, ...]:
        """Each template for each of its sizes and quantizations."""
        return tuple(
            ModelSpec(
                fields=_filled(template.fields, size, quantization), size=size, quantization=quantization
            )
            for template in self.templates
            for size in (template.sizes or self.sizes or (None,))
            for quantization in (template.quantizations or self.quantizations or (None,))
        )


def in_order(sets: tuple[ModelSet, ...]) -> tuple[ModelSet, ...]:
    """By ``order`` (those without one last), then the newest first, then by name; numbered from 1."""
    found = sorted(sets, key=lambda one: one.name.casefold())
    found.sort(key=lambda one: one.release_date or "", reverse=True)
    found.sort(key=lambda one: float("inf") if one.order is None else one.order)
    return tuple(attrs.evolve(one, id=number) for number, one in enumerate(found, 1))


def size_text(size: float) -> str:
    """``1.0`` → ``1``, ``0.6`` → ``0.6``."""
    return f"{size:.0f}" if size == int(size) else f"{size:g}"


def _filled(value: Any, size: float | None, quantization: str | None) -> Any:
    if isinstance(value, str):
        filled = value if size is None else value.replace("{size}", size_text(size))
        return filled if quantization is None else filled.replace("{quantization}", quantization)
    if isinstance(value, Mapping):
        return {key: _filled(item, size, quantization) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_filled(item, size, quantization) for item in value]
    return value
