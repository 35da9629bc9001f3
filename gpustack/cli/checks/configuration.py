"""Whether ``gpustack start`` can read its options."""

from __future__ import annotations

from gpustack.cli.finding import CheckContext, Finding, failed, good, note


async def look(scene: CheckContext) -> list[Finding]:
    if scene.config_error is not None:
        fix = "Change it where it says it was written; gpustack config shows every option and its origin."
        return [failed(str(fault), fix) for fault in scene.config_error.faults]
    if scene.loaded is None:
        return []
    written = sum(origin.kind != "default" for origin in scene.loaded.origins.values())
    found = [
        good(f"{written} options are set, the rest have their defaults; it starts as {scene.loaded.role}")
    ]
    return [*found, *(note(warning) for warning in scene.loaded.warnings)]
