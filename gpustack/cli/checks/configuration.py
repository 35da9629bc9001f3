"""Whether ``gpustack start`` can read its options."""

from __future__ import annotations

from gpustack.cli.check import CheckContext, Finding, failed, good, note


async def look(context: CheckContext) -> list[Finding]:
    if context.config_error is not None:
        fix = "Change it where it says it was written; gpustack config shows every option and its origin."
        return [failed(str(fault), fix) for fault in context.config_error.faults]
    if context.loaded is None:
        return []
    written = sum(origin.kind != "default" for origin in context.loaded.origins.values())
    found = [
        good(f"{written} options are set, the rest have their defaults; it starts as {context.loaded.role}")
    ]
    return [*found, *(note(warning) for warning in context.loaded.warnings)]
