"""List the servers that share a database, and which of them leads.

Usage:
  gpustack servers [options]

Options:
  -o, --output=FORM  table, json or yaml (default: table).
  -q, --quiet        Addresses only.
  -h, --help         Show this help.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from gpustack.cli import output, phrase
from gpustack.cli.session import open_session
from gpustack.cli.table import Cell, Row, draw
from gpustack.cli.terminal import Terminal, stdout
from gpustack.cli.usage import read

_HEADS = ("ADDRESS", "STATE", "LEADS", "VERSION", "HEARD")


def run(argv: Sequence[str], env: Mapping[str, str]) -> int:
    """Print a row for each server: where workers reach it, and whether it is there."""
    words = read(__doc__, "servers", argv)
    from gpustack.cli.lookup import SERVERS

    servers = open_session(env).run(lambda client: client.all(SERVERS))
    output.show(words, servers, lambda: _table(servers, stdout(env)), name="url")
    return 0


def _table(servers: list[dict[str, Any]], terminal: Terminal) -> str:
    return draw(_HEADS, [_row(server) for server in servers], terminal)


def _row(server: dict[str, Any]) -> Row:
    state = "ready" if server["is_live"] else "unreachable"
    return Row(
        [
            str(server["url"]),
            Cell(state, phrase.state_style(state)),
            "yes" if server["is_leading"] else "-",
            str(server["version"]),
            phrase.span(float(server["seconds_silent"])),
        ]
    )
