"""Write what there is as manifests, which gpustack apply takes again.

Usage:
  gpustack export [options] [OBJECT...]

OBJECT is KIND/NAME such as Model/qwen, or a kind alone; without one it is everything: models, backends, and limits of
accounts and keys. Fields with their defaults are left out, and so are ids and dates; the same cluster is written the
same each time. What is likely a secret is left out and named in secrets_kept: applied again, it stays as it is stored.

Options:
  -f, --file=FILE    Write to this file, not to stdout.
  --secrets          With secrets, in clear text; the file is then readable by you alone.
  -o, --output=FORM  yaml or json (default: yaml).
  -h, --help         Show this help.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from gpustack.cli import output
from gpustack.cli.command_line import read, suggestion
from gpustack.cli.session import Doc, open_session
from gpustack.errors import NotFound

_KEPT = "secrets_kept"


def run(argv: Sequence[str], env: Mapping[str, str]) -> int:
    """Print the manifests, or write them to a file."""
    command_line = read(__doc__, "export", argv)
    from gpustack.cli.manifest_file import MANIFESTS

    form, secrets = command_line.choice("--output", "yaml", "json"), command_line.flag("--secrets")
    path = f"{MANIFESTS}?secrets=true" if secrets else MANIFESTS
    found = open_session(env).run(lambda client: client.get(path))["documents"]
    chosen = _chosen(found, command_line.many("OBJECT"))
    text = output.as_json(chosen) + "\n" if form == "json" else _yaml(chosen)
    file = command_line.text("--file")
    if file is None:
        print(text, end="")
    else:
        output.write_file(command_line, file, text, mode=0o600 if secrets else 0o644)
    return 0


def _chosen(documents: Sequence[Doc], wanted: Sequence[str]) -> list[Doc]:
    """The documents that are asked for, in their order; all without ``wanted``. Raises NotFound."""
    from gpustack.cli.commands.diff import name_of

    by_name = {"/".join(name_of(one)): one for one in documents}
    kinds = {str(one["kind"]) for one in documents}
    for word in wanted:
        if word not in by_name and word not in kinds:
            guess = suggestion(word, (*by_name, *kinds), "gpustack export without names writes everything")
            raise NotFound(f"There is no {word}: write KIND/NAME, such as Model/qwen; {guess}")
    return [
        one for name, one in by_name.items() if not wanted or name in wanted or str(one["kind"]) in wanted
    ]


def _yaml(documents: list[Doc]) -> str:
    from gpustack.domain.yaml_lines import dump_documents
    from gpustack.text import printable

    remarks = {
        number: f"Left out as likely secrets; they stay as they are stored: {printable(', '.join(one[_KEPT]))}"
        for number, one in enumerate(documents)
        if one.get(_KEPT)
    }
    return dump_documents(documents, remarks)
