"""List the models that are deployed.

Usage:
  gpustack ls [options]

Options:
  -o, --output=FORM  table, json or yaml (default: table).
  -q, --quiet        Names only.
  -h, --help         Show this help.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

from gpustack.cli import output, phrase
from gpustack.cli.session import open_session
from gpustack.cli.table import Cell, Row, draw
from gpustack.cli.terminal import Terminal, stderr, stdout
from gpustack.cli.usage import read

_HEADS = ("NAME", "SOURCE", "READY", "BACKEND", "CATEGORIES", "AGE")


def run(argv: Sequence[str], env: Mapping[str, str]) -> int:
    """Print a row for each model."""
    words = read(__doc__, "ls", argv)
    from gpustack.cli.lookup import MODELS

    models = open_session(env).run(lambda client: client.all(MODELS))
    if not models:
        stderr(env).say("No model is deployed; gpustack run MODEL deploys one.")
    output.show(words, models, lambda: _table(models, datetime.now(UTC), stdout(env)))
    return 0


def _table(models: list[dict[str, Any]], now: datetime, terminal: Terminal) -> str:
    return draw(_HEADS, [_row(model, now) for model in models], terminal) if models else ""


def _row(model: dict[str, Any], now: datetime) -> Row:
    ready, wanted = model.get("ready_replicas") or 0, model.get("replicas") or 0
    style = "dim" if not wanted else "green" if ready >= wanted else "yellow"
    return Row(
        [
            str(model["name"]),
            phrase.source(model),
            Cell(f"{ready}/{wanted}", style),
            str(model.get("backend") or "auto"),
            ",".join(model.get("categories") or ()) or "-",
            phrase.age(model.get("created_at"), now),
        ]
    )
