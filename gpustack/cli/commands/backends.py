"""List the backends that administrators described, show, add, change or remove one.

Usage:
  gpustack backends [options]
  gpustack backends ls [options]
  gpustack backends show [options] NAME
  gpustack backends add [options] --file=FILE
  gpustack backends rm [options] NAME...

A backend is an engine as data: a command template for each version, environment, health path, categories and metrics.
A deployment runs it by naming it as its backend. add reads one from YAML, or several as a list; one of that name is
changed. Deployments take a change over when their engines are replaced anyway, or now with --roll. One that is in use
is not removed. docs/backends.md has an example.

Options:
  -f, --file=FILE    YAML of the backends to add; - reads stdin.
  --roll             Replace the engines of the deployments that use what is changed, one replica at a time.
  -o, --output=FORM  table, json or yaml (default: table; show prints YAML, which add takes again).
  -q, --quiet        Names only.
  --dry-run          Only tell what would be changed.
  -h, --help         Show this help.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from functools import partial
from typing import TYPE_CHECKING, Any

from gpustack.cli import output, phrase
from gpustack.cli.command_line import CommandLine, read
from gpustack.cli.input_file import read_input
from gpustack.cli.output import Row
from gpustack.cli.session import Doc, open_session
from gpustack.text import listed

if TYPE_CHECKING:
    from gpustack.remote.admin_client import AdminClient

_HEADS = ("NAME", "VERSIONS", "CATEGORIES", "USED BY", "AGE")
_LONGEST = 1 << 20
_KEYS = (
    "name",
    "description",
    "versions",
    "default_version",
    "env",
    "health_path",
    "categories",
    "metrics",
    "install",
)
_OF_SERVER = ("id", "created_at", "updated_at", "used_by")
"""What the server alone decides."""
_SHOWN = 3


def run(argv: Sequence[str], env: Mapping[str, str]) -> int:
    """Print a row for each backend, one of them as YAML, or what has been done."""
    command_line = read(__doc__, "backends", argv)
    from gpustack.cli.lookup import BACKENDS, backend_named

    names, session = command_line.many("NAME"), open_session(env)
    if command_line.flag("show"):
        found = session.run(lambda client: backend_named(client, names[0]))
        output.show(command_line, found, lambda: output.as_yaml(_as_added(found)))
    elif command_line.flag("rm"):
        session.run(lambda client: _remove(client, names))
        for name in names:
            print(f"{name} is removed")
    elif command_line.flag("add"):
        documents = _documents(command_line)
        for line in session.run(lambda client: _add(client, documents, command_line.flag("--roll"))):
            print(line)
    else:
        listed = session.run(lambda client: client.all(BACKENDS))
        row = partial(_row, now=datetime.now(UTC))
        hint = "There are none yet; gpustack backends add -f FILE adds one. Engines with code need none"
        output.show_list(command_line, listed, _HEADS, row, env, empty=hint)
    return 0


def _documents(command_line: CommandLine) -> list[Doc]:
    """The backends of the file. Raises UsageError for a file that has none."""
    from gpustack.domain.document import read_yaml
    from gpustack.errors import Invalid

    name = command_line.required("--file")
    try:
        found = read_yaml(read_input(command_line, name, _LONGEST))
    except Invalid as error:
        raise command_line.error(f"{name}: {error}") from error
    documents = found if isinstance(found, list) else [found]
    for document in documents:
        if not isinstance(document, dict) or not isinstance(document.get("name"), str):
            raise command_line.error(f"{name}: a backend is a mapping with a name, versions and so on")
        _refuse_bare_numbers(command_line, name, document.get("versions"))
        _refuse_unknown_keys(command_line, name, document)
    return documents


def _refuse_unknown_keys(command_line: CommandLine, file: str, document: Doc) -> None:
    """A key that is mistyped would be taken for none. Those that ``show --output=json`` has are taken."""
    from difflib import get_close_matches

    for key in document:
        if key not in (*_KEYS, *_OF_SERVER):
            near = get_close_matches(str(key), _KEYS, n=1)
            meant = f"did you mean {near[0]}?" if near else f"it has {', '.join(_KEYS)}"
            raise command_line.error(f"{file}: a backend has no {key}; {meant}")


def _refuse_bare_numbers(command_line: CommandLine, file: str, versions: Any) -> None:
    for version in versions if isinstance(versions, dict) else ():
        if not isinstance(version, str):
            raise command_line.error(
                f"{file}: write the version {version} in quotes: YAML takes it for a number, and 1.10 for 1.1"
            )


async def _add(client: AdminClient, documents: Sequence[Doc], roll: bool) -> list[str]:
    from gpustack.cli.lookup import BACKENDS

    known = {backend["name"]: backend for backend in await client.all(BACKENDS)}
    said = []
    for document in documents:
        before = known.get(document["name"].strip())
        if before is None:
            await client.create(BACKENDS, document)
            said.append(f"{document['name']} is added")
            continue
        # What the file does not say any more is not to stay.
        whole = {**dict.fromkeys(_KEYS), **document, "roll": roll}
        await client.update(f"{BACKENDS}/{before['id']}", whole)
        users = before.get("used_by") or []
        verb = (
            "is being taken over by"
            if roll
            else "is taken over at their next change (or now, with --roll) by"
        )
        said.append(
            f"{document['name']} is changed" + (f"; it {verb} {listed(users, _SHOWN)}" if users else "")
        )
    return said


async def _remove(client: AdminClient, names: Sequence[str]) -> None:
    """All names are looked up before anything is removed."""
    from gpustack.cli.lookup import BACKENDS, backend_named

    for backend in [await backend_named(client, name) for name in names]:
        await client.delete(f"{BACKENDS}/{backend['id']}")


def _as_added(backend: Doc) -> Doc:
    """Without what the server alone decides, and what is not set."""
    return {
        name: value
        for name, value in backend.items()
        if name not in _OF_SERVER and value not in (None, [], {})
    }


def _row(backend: Doc, now: datetime) -> Row:
    default = backend["default_version"]
    others = sorted(version for version in backend.get("versions") or {} if version != default)
    return Row(
        [
            str(backend["name"]),
            listed([default, *others], _SHOWN),
            ", ".join(backend.get("categories") or ()) or "-",
            listed(backend.get("used_by") or [], _SHOWN) or "-",
            phrase.age(backend.get("created_at"), now),
        ],
        remark=str(backend.get("description") or ""),
    )
