"""Run the server with its built-in worker, or a worker that joins a server."""

from __future__ import annotations

from collections.abc import Mapping, Sequence


def run(argv: Sequence[str], env: Mapping[str, str]) -> int:
    """Run the daemon; its options are those of ``gpustack.config.options``."""
    from gpustack.cli.start import start_command

    return start_command(argv, env)
