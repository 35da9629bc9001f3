"""List the servers that share a database, and which of them leads.

Usage:
  gpustack servers [options]

Options:
  -o, --output=FORM  table, wide, json or yaml (default: table).
  -q, --quiet        Addresses only.
  -h, --help         Show this help.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from gpustack.cli import output, phrase
from gpustack.cli.command_line import read
from gpustack.cli.output import Cell, Row
from gpustack.cli.session import Doc, open_session

_HEADS = ("ADDRESS", "STATE", "LEADS", "VERSION", "HEARD")


def run(argv: Sequence[str], env: Mapping[str, str]) -> int:
    """Print a row for each server: where workers reach it, and whether it is there."""
    command_line = read(__doc__, "servers", argv)
    from gpustack.cli.lookup import SERVERS

    servers = open_session(env).run(lambda client: client.all(SERVERS))
    output.show_list(command_line, servers, _HEADS, _row, env, name="url")
    return 0


def _row(server: Doc) -> Row:
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
