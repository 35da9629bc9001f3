"""Stop models: their instances end, the deployments stay.

Usage:
  gpustack stop [options] MODEL...

Options:
  -h, --help  Show this help.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from gpustack.cli.commands.scale import scale
from gpustack.cli.session import open_session
from gpustack.cli.usage import read


def run(argv: Sequence[str], env: Mapping[str, str]) -> int:
    """Set the replicas of every model named to none; all names are looked up before anything is stopped."""
    words = read(__doc__, "stop", argv)
    names = words.many("MODEL")
    open_session(env).run(lambda client: scale(client, names, 0))
    for name in names:
        print(f"{name} stops; gpustack run {name} starts it again")
    return 0
