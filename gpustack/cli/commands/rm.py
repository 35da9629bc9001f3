"""Remove models: instances end, deployments go, downloaded files stay.

Usage:
  gpustack rm [options] MODEL...

Options:
  --dry-run   Only tell what would be changed.
  -h, --help  Show this help.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from gpustack.cli.command_line import read
from gpustack.cli.session import open_session

if TYPE_CHECKING:
    from gpustack.remote.admin_client import AdminClient


def run(argv: Sequence[str], env: Mapping[str, str]) -> int:
    """Delete every model named; all names are looked up before anything is removed."""
    command_line = read(__doc__, "rm", argv)
    names = command_line.many("MODEL")
    open_session(env).run(lambda client: _remove(client, names))
    for name in names:
        print(f"{name} is removed")
    return 0


async def _remove(client: AdminClient, names: Sequence[str]) -> None:
    from gpustack.cli.lookup import MODELS, model_named

    models = [await model_named(client, name) for name in names]
    for model in models:
        await client.delete(f"{MODELS}/{model['id']}")
