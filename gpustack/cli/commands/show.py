"""Show all that is known of a model, an instance or a worker.

Usage:
  gpustack show [options] NAME

Options:
  -o, --output=FORM  table, json or yaml (default: table, which leaves out what is not set).
  -h, --help         Show this help.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from gpustack.cli import output
from gpustack.cli.command_line import read
from gpustack.cli.session import open_session
from gpustack.errors import NotFound

if TYPE_CHECKING:
    from gpustack.remote.admin_client import AdminClient


def run(argv: Sequence[str], env: Mapping[str, str]) -> int:
    """Print the object of that name."""
    command_line = read(__doc__, "show", argv)
    name = command_line.required("NAME")
    found = open_session(env).run(lambda client: _find(client, name))
    output.show(command_line, found, lambda: output.as_yaml(_set_only(found)))
    return 0


async def _find(client: AdminClient, name: str) -> dict[str, Any]:
    from gpustack.cli.lookup import INSTANCES, MODELS, WORKERS, find, rates_of

    for path in (MODELS, INSTANCES, WORKERS):
        found = await find(client, path, name)
        if found is not None:
            return found | (await rates_of(client)).get(found.get("id"), {}) if path == MODELS else found
    raise NotFound(
        f"There is no model, instance or worker {name!r}; gpustack ls, gpustack ps and gpustack workers list them"
    )


def _set_only(value: Any) -> Any:
    """``value`` without fields that are unknown, empty or false."""
    if isinstance(value, dict):
        kept = {key: _set_only(item) for key, item in value.items()}
        return {
            key: item for key, item in kept.items() if item not in (None, "", False) and item not in ([], {})
        }
    if isinstance(value, list):
        return [_set_only(item) for item in value]
    return value
