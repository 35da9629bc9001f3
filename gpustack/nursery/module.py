"""How a module of ours is run as a program."""

from __future__ import annotations

import sys


def module_command(module: str, *arguments: str, python: str = sys.executable) -> tuple[str, ...]:
    """The command that runs ``module`` with this Python, or the one given.

    ``-P``: without it Python would look first in the working directory, and run what lies there under a name that
    the module imports, as the daemon's user.
    """
    return (python, "-P", "-m", module, *arguments)
