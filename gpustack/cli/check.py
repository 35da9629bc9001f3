"""The checks of ``gpustack doctor``: what each is given, what it finds, and how all of them are run."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Any

import attrs

from gpustack.cli.session import ServerAddress, find_server
from gpustack.errors import GpustackError

if TYPE_CHECKING:
    from gpustack.config.loader import Configuration
    from gpustack.config.options import Options
    from gpustack.config.origin import ConfigError


class CheckStatus(StrEnum):
    """``NOTE`` is nothing wrong, but worth knowing, or something that could not be found out."""

    GOOD = "ok"
    NOTE = "note"
    FAILED = "failed"


@attrs.frozen
class Finding:
    """One answer of a check. ``fix`` is what to do about one that failed."""

    status: CheckStatus
    sentence: str
    fix: str = ""


def good(sentence: str) -> Finding:
    return Finding(CheckStatus.GOOD, sentence)


def note(sentence: str, fix: str = "") -> Finding:
    return Finding(CheckStatus.NOTE, sentence, fix)


def failed(sentence: str, fix: str) -> Finding:
    return Finding(CheckStatus.FAILED, sentence, fix)


@attrs.frozen(kw_only=True)
class CheckContext:
    """This machine as ``gpustack start`` would find it. ``loaded`` is None where the configuration is wrong.

    ``address`` is the server that commands would talk to, ``unreached`` why there is none.
    """

    env: Mapping[str, str] = attrs.field(repr=False)
    loaded: Configuration | None
    config_error: ConfigError | None = None
    address: ServerAddress | None = None
    unreached: str = ""

    @classmethod
    def of(cls, start_argv: Sequence[str], env: Mapping[str, str]) -> CheckContext:
        """The machine as ``gpustack start *start_argv`` would find it. Blocks for some seconds at most."""
        from gpustack.config.loader import load
        from gpustack.config.origin import ConfigError

        loaded, config_error = None, None
        # The same variable is where commands talk to and where a worker joins; only a worker has a token beside it.
        of_start = {
            name: value
            for name, value in env.items()
            if name != "GPUSTACK_SERVER_URL" or "GPUSTACK_TOKEN" in env
        }
        try:
            loaded = load(start_argv, of_start, platform=sys.platform, cwd=Path.cwd())
        except ConfigError as error:
            config_error = error
        if loaded is not None:
            env = {**env, "GPUSTACK_DATA_DIR": str(loaded.options.data_dir)}
        address, unreached = None, ""
        try:
            address = find_server(env)
        except GpustackError as error:
            unreached = str(error)
        return cls(env=env, loaded=loaded, config_error=config_error, address=address, unreached=unreached)

    @property
    def options(self) -> Options | None:
        return None if self.loaded is None else self.loaded.options

    @property
    def server_options(self) -> Options | None:
        """The options where a server would run here; ``None`` for a worker alone and a wrong configuration."""
        return None if self.loaded is None or self.loaded.role == "worker" else self.loaded.options


def run_checks(context: CheckContext) -> list[tuple[str, Finding]]:
    """The findings of all checks, each with the name of its check; the checks run side by side."""
    import trio

    from gpustack.plugins import siblings

    modules = siblings("gpustack.cli.checks")
    found: dict[str, list[Finding]] = {}

    async def one(name: str, module: Any) -> None:
        found[name] = await module.look(context)

    async def all_of_them() -> None:
        async with trio.open_nursery() as nursery:
            for module in modules:
                nursery.start_soon(one, _name(module), module)

    trio.run(all_of_them)
    return [(name, finding) for name in map(_name, modules) for finding in found[name]]


def _name(module: Any) -> str:
    return str(module.__name__.rpartition(".")[2].replace("_", " "))
