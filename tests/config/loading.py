"""How the tests of configuration load one: as root on Linux, unless told otherwise."""

from __future__ import annotations

from pathlib import Path

from gpustack.config.loader import Configuration, load
from gpustack.config.origin import ConfigError


def loaded(
    *argv: str,
    env: dict[str, str] | None = None,
    cwd: Path = Path("/"),
    platform: str = "linux",
    euid: int = 0,
) -> Configuration:
    return load(list(argv), env or {}, platform=platform, cwd=cwd, euid=euid)


def faults(
    *argv: str, env: dict[str, str] | None = None, cwd: Path = Path("/"), platform: str = "linux"
) -> list[str]:
    """What is wrong with that configuration, in words; nothing if it loads."""
    try:
        loaded(*argv, env=env, cwd=cwd, platform=platform)
    except ConfigError as error:
        return [str(fault) for fault in error.faults]
    return []
