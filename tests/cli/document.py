"""docs/cli.md, written from the usage texts; ``make docs`` writes it."""

from __future__ import annotations

import importlib
from types import ModuleType

from gpustack.cli.main import names

HEAD = """\
# The command line

<!-- Written by `make docs`. Change gpustack/cli/commands/, then run that again. -->

`gpustack start` runs the daemon; its options are in [options.md](options.md), and `gpustack config` takes the same
ones. `backup`, `restore` and `db` work on the database of this machine's installation, `download-tools` on its
programs, `doctor` looks at the machine, `estimate` at a model; `version` and `completion` need nothing. Every
other command is a client: it talks to the server that it finds like this.

1. `--context NAME`, a server that `gpustack context add` has named.
2. Otherwise `GPUSTACK_SERVER_URL`, if it is set, else the context of `GPUSTACK_CONTEXT`, else the one of
   `gpustack context use`.
3. Otherwise the server that runs on this machine: the address in the file `server_url` of its data directory
   (`GPUSTACK_DATA_DIR`, or where `gpustack start` puts it by default), then port 80, and for a user who is not root
   port 8080; the first that answers.

A server on this machine wants no key of root and of the user that it runs as, and lets other users of the machine use
models and look at them, unless it runs with `--force-auth-localhost`: for more these take `sudo` or a key. For any
other server put an API key into `GPUSTACK_API_KEY`, which goes before the key of a context in use.

Results go to stdout, everything said about them to stderr. `-o json` and `-o yaml` print the objects of the API as
they are; `-q` prints names alone; with `--dry-run` a command that changes something tells what, and changes nothing.
Colours and lines that are drawn over show only on a terminal; `NO_COLOR` turns colours off.

| Exit code | Means |
| --- | --- |
| `0` | done |
| `1` | it failed; one line on stderr says why and what to change |
| `2` | the command line or the configuration is wrong |
| `124` | the `--timeout` of `run`, `pull`, `wait` or another command was over before what was waited for came |
| `130` | ended by Ctrl-C |
"""


def module_of(name: str) -> ModuleType:
    """The file of a command."""
    return importlib.import_module(f"gpustack.cli.commands.{name.replace('-', '_')}")


def document() -> str:
    """The text of docs/cli.md."""
    parts = [HEAD]
    for name in names():
        summary, _, rest = (module_of(name).__doc__ or "").partition("\n")
        parts.append(f"\n## gpustack {name}\n\n{summary}\n")
        if rest.strip():
            parts.append(f"\n```text\n{rest.strip()}\n```\n")
    return "".join(parts)


if __name__ == "__main__":
    print(document(), end="")
