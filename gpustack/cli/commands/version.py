"""Print the version of this program.

Usage:
  gpustack version [options]

Options:
  --short     Only the version, without the commit.
  -h, --help  Show this help.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from gpustack import __commit__, __version__
from gpustack.cli.command_line import read


def run(argv: Sequence[str], env: Mapping[str, str]) -> int:
    """Print ``VERSION (COMMIT)``, as scripts read it."""
    command_line = read(__doc__, "version", argv)
    print(__version__ if command_line.flag("--short") else f"{__version__} ({__commit__})")
    return 0
