"""Stop models: their instances end, the deployments stay.

Usage:
  gpustack stop [options] MODEL...

Options:
  --dry-run   Only tell what would be changed.
  -h, --help  Show this help.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from gpustack.cli.command_line import read
from gpustack.cli.commands.scale import scale
from gpustack.cli.session import open_session


def run(argv: Sequence[str], env: Mapping[str, str]) -> int:
    """Set the replicas of every model named to none; all names are looked up before anything is stopped."""
    command_line = read(__doc__, "stop", argv)
    names = command_line.many("MODEL")
    open_session(env).run(lambda client: scale(client, names, 0))
    for name in names:
        print(f"{name} stops; gpustack run {name} starts it again")
    return 0
