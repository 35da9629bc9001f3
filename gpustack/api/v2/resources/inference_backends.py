"""Backends of administrators, as GPUStack 2.x writes and shows them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from gpustack.domain.snapshot import Snapshot

from ..face import Face
from ..translation import Difference, Doc, Reading, Translation, renamed, shown
from .models import command_from, command_shown


def _versions(value: Any, reading: Reading) -> Doc:
    """Theirs are images with a command in them, ours commands: an image is named as ignored."""
    found = value.get("root", value.get("versions", value)) if isinstance(value, dict) else None
    if not isinstance(found, Mapping) or not all(isinstance(one, dict) for one in found.values()):
        return {"versions": value}
    for version, one in found.items():
        for name in one.keys() - {"run_command", "env"}:
            if one[name]:
                reading.ignore(f"version_configs.{version}.{name}")
    return {
        "versions": {
            version: {"command": command_from(one.get("run_command")), "env": one.get("env") or {}}
            for version, one in found.items()
        }
    }


def _shown_versions(document: Doc, snapshot: Snapshot) -> Doc:
    return {
        version: {"run_command": command_shown(one.get("command")), "env": one.get("env") or {}}
        for version, one in (document.get("versions") or {}).items()
    }


FACES = (
    Face(
        path="/v1/inference-backends",
        translation=Translation(
            differences=(
                renamed("backend_name", "name"),
                renamed("health_check_path", "health_path"),
                Difference("version_configs", _versions, _shown_versions),
                shown("backend_source", "custom"),
                shown("is_built_in", False),
            ),
        ),
        views=("InferenceBackend",),
    ),
)
