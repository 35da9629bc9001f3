"""Create and change what manifests describe: all of it, or nothing.

Usage:
  gpustack apply [options] (-f FILE)...
  gpustack apply [options] --plan=FILE

A manifest is a YAML document with kind (Model, Backend or Limits), name and fields as in the API; a file may hold
several. A field that is left out gets its default, a secret that secrets_kept names stays. Nothing is deleted: gpustack
rm does that. gpustack export writes manifests of what there is, gpustack diff shows what apply would change.
docs/manifests.md has examples.

Options:
  -f, --file=FILE    A file, a folder (its .yaml, .yml and .json files) or - for stdin; may be repeated.
  --plan=FILE        Do just what gpustack plan --out has written, or refuse with what has changed since.
  --dry-run          Only check, and tell what would be changed.
  -o, --output=FORM  table, json or yaml (default: table).
  -h, --help         Show this help.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from gpustack.cli import output
from gpustack.cli.command_line import CommandLine, read
from gpustack.cli.failure import UsageError
from gpustack.cli.session import Doc, open_session
from gpustack.cli.terminal import Terminal, stdout


def run(argv: Sequence[str], env: Mapping[str, str]) -> int:
    """Print what became of each object, and which fields changed."""
    command_line = read(__doc__, "apply", argv)
    from gpustack.cli.manifest_file import MANIFESTS, read_manifest_files, send

    planned = command_line.text("--plan")
    if planned is not None:
        return _carry_out(command_line, planned, env)
    fields = {"dry_run": command_line.flag("--dry-run")}
    try:
        files = read_manifest_files(command_line, command_line.many("--file"))
        answer = open_session(env).run(lambda client: send(client, MANIFESTS, files, fields))
    except UsageError as error:
        if error.usage:
            raise
        # Faults by file and line, of all files: some of them may be without one.
        raise UsageError(f"{error}\nNothing was changed.") from error
    output.show(command_line, answer, lambda: told(answer["objects"], stdout(env)))
    return 0


def _carry_out(command_line: CommandLine, name: str, env: Mapping[str, str]) -> int:
    from gpustack.cli.manifest_file import PLANS
    from gpustack.cli.plan_file import read_plan

    if command_line.flag("--dry-run"):
        raise command_line.error("--plan says already what would be done: gpustack plan shows it again")
    body = read_plan(command_line, name)
    answer = open_session(env).run(lambda client: client.create(f"{PLANS}/apply", body))
    output.show(command_line, answer, lambda: _done(answer, body["drain_workers"], stdout(env)))
    return 0


def _done(answer: Doc, drained: Sequence[str], terminal: Terminal) -> str:
    lines = [told(answer["changes"], terminal)] if answer["changes"] else []
    return "\n".join([*lines, *(f"{name} is being drained" for name in drained)])


_COLOURS = {"created": "green", "changed": "yellow"}


def told(objects: Sequence[Doc], terminal: Terminal) -> str:
    """A line for each object, and one for each field that changed."""
    from gpustack.cli.manifest_file import drawn

    lines = []
    for one in objects:
        change = str(one["change"])
        lines.append(f"{one['kind']}/{one['name']} {terminal.style(change, _COLOURS.get(change))}")
        for name, pair in one["fields"].items():
            lines.append(f"  {name}: {drawn(pair.get('from'))} -> {drawn(pair.get('to'))}")
    return "\n".join(lines)
