"""Change how many instances of a model run.

Usage:
  gpustack scale [options] MODEL REPLICAS

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
    """Set the replicas of the model."""
    command_line = read(__doc__, "scale", argv)
    name, replicas = command_line.required("MODEL"), command_line.whole("REPLICAS") or 0
    (before,) = open_session(env).run(lambda client: scale(client, [name], replicas))
    if before == replicas:
        print(f"{name} is at {replicas} replicas already; gpustack ps {name} shows them")
        return 0
    print(f"{name} goes from {before} to {replicas} replicas; gpustack ps {name} shows them")
    return 0


async def scale(client: AdminClient, names: Sequence[str], replicas: int) -> list[int]:
    """Set the replicas of all models named; returns what they were. Raises NotFound before anything is changed."""
    from gpustack.cli.lookup import MODELS, model_named

    models = [await model_named(client, name) for name in names]
    for model in models:
        await client.update(f"{MODELS}/{model['id']}", {"replicas": replicas})
    return [int(model.get("replicas") or 0) for model in models]
