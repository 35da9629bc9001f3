"""Plans in files, as ``gpustack plan --out`` writes them."""

from __future__ import annotations

import json
from typing import Any

from gpustack.cli.command_line import CommandLine
from gpustack.cli.input_file import read_input
from gpustack.cli.session import Doc

_LONGEST = 16 << 20
_SUPPOSED = {
    "add_workers": "counts on workers that are not there",
    "lose_workers": "supposes that workers are lost",
}


def read_plan(command_line: CommandLine, name: str) -> Doc:
    """What the server needs to carry a plan out. Raises UsageError for what is no plan, or only a question."""
    plan = _plan_in(read_input(command_line, name, _LONGEST))
    if plan is None:
        raise command_line.error(f"{name}: this is no plan that gpustack plan --out has written")
    for field, what in _SUPPOSED.items():
        if plan.get(field):
            raise command_line.error(
                f"{name}: this plan {what} ({', '.join(plan[field])}), so it cannot be done"
            )
    return {
        "documents": plan.get("documents") or [],
        "drain_workers": plan.get("drain_workers") or [],
        "rests_on": plan["plan"]["rests_on"],
        "decisions": plan["plan"]["decisions"],
    }


def _plan_in(raw: bytes) -> Doc | None:
    try:
        found: Any = json.loads(raw)
    except (ValueError, RecursionError):
        return None
    plan = found.get("plan") if isinstance(found, dict) else None
    whole = isinstance(plan, dict) and isinstance(plan.get("rests_on"), dict) and "decisions" in plan
    return found if whole else None
