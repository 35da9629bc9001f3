"""Print every option with its value and where that came from, as start would see it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence


def run(argv: Sequence[str], env: Mapping[str, str]) -> int:
    """Print the configuration."""
    from gpustack.cli.config import config_command

    return config_command(list(argv), env)
