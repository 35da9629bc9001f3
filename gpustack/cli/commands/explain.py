"""Tell why an instance is where it is, or what would let it run.

Usage:
  gpustack explain [options] NAME

NAME is an instance, or a model, whose instances are then explained one by one.

Options:
  --apply=KIND       Make the change of this kind, of those that are listed.
  -o, --output=FORM  table, json or yaml (default: table); the last two tell all.
  --dry-run          With --apply: only tell what would be changed.
  -h, --help         Show this help.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from gpustack.cli import output
from gpustack.cli.command_line import CommandLine, read
from gpustack.cli.explanation import told
from gpustack.cli.session import Doc, open_session
from gpustack.cli.terminal import harmless, stdout

if TYPE_CHECKING:
    from gpustack.remote.admin_client import AdminClient


def run(argv: Sequence[str], env: Mapping[str, str]) -> int:
    """Print what the scheduler has to say, workers that are alike together; or make a change that it tells."""
    command_line = read(__doc__, "explain", argv)
    name, wanted = command_line.required("NAME"), command_line.text("--apply")
    if wanted is not None:
        print(harmless(open_session(env).run(lambda client: _apply(client, name, wanted, command_line))))
        return 0
    found = open_session(env).run(lambda client: _explain(client, name))
    output.show(command_line, found, lambda: "\n\n".join(told(one, stdout(env)) for one in found))
    return 0


async def _explain(client: AdminClient, name: str) -> list[Doc]:
    from gpustack.cli.lookup import INSTANCES, instances_named

    found = await instances_named(client, name)
    return [
        {
            **await client.get(f"{INSTANCES}/{instance['id']}/explain"),
            **{name: instance.get(name) for name in ("state", "state_message", "next_retry_at")},
        }
        for instance in found
    ]


async def _apply(client: AdminClient, name: str, wanted: str, command_line: CommandLine) -> str:
    """Make the change; returns what was done. Raises UsageError where there is no such change, or it is not made
    through the API."""
    found = [one for one in await _explain(client, name) if one.get("changes")]
    if not found:
        raise command_line.error(f"There is no change to make: nothing of {name} waits for a place")
    changes = found[0]["changes"]
    # Not by a number: another change may have it by now.
    chosen = [one for one in changes if one.get("kind") == wanted]
    if not chosen:
        kinds = ", ".join(str(one.get("kind")) for one in changes)
        raise command_line.error(f"There is no change {wanted!r}; there are {kinds}")
    remedy = chosen[0]
    if not remedy.get("by_api"):
        raise command_line.error(f"This is not for the server to do: {remedy.get('sentence')}")
    await make(client, remedy["changes"])
    return (
        f"Done: {remedy.get('sentence')}. Changed: {changed(remedy['changes'])}; gpustack explain {name} tells what "
        "comes of it"
    )


def changed(changes: Sequence[Mapping[str, Any]]) -> str:
    """What was written, since a sentence may leave a choice, and not say that a model has no replica left."""
    return ", ".join(
        f"{one.get('name')} ends"
        if one["of"] == "model_instance"
        else f"{one['field']} of {one.get('name')}"
        + (f" is {one['value']}" if isinstance(one.get("value"), bool | int | str) else "")
        for one in changes
    )


async def make(client: AdminClient, changes: Sequence[Mapping[str, Any]]) -> None:
    """Make all changes. Instances are ended before their models want fewer: else another one might be ended too."""
    from gpustack.cli.lookup import INSTANCES, MODELS, WORKERS

    paths = {"model": MODELS, "worker": WORKERS}
    fields: dict[str, dict[str, Any]] = {}
    for change in changes:
        if change["of"] == "model_instance":
            await client.delete(f"{INSTANCES}/{change['id']}")
        else:
            path = f"{paths[change['of']]}/{change['id']}"
            fields.setdefault(path, {})[change["field"]] = change.get("value")
    for path, values in fields.items():
        await client.update(path, values)
