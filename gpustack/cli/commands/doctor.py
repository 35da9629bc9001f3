"""Look for what keeps this machine from working, and say how to mend it.

Usage:
  gpustack doctor [options]
  gpustack doctor [options] -- START_OPTION...

It needs no server. Options of gpustack start, if they are not in the environment, follow after --.

Options:
  -o, --output=FORM  table, json or yaml (default: table).
  -h, --help         Show this help.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from gpustack.cli import output
from gpustack.cli.finding import CheckContext, CheckStatus, Finding
from gpustack.cli.misuse import FAILED
from gpustack.cli.terminal import Terminal, stdout
from gpustack.cli.usage import read

_STYLES = {CheckStatus.GOOD: "green", CheckStatus.NOTE: "yellow", CheckStatus.FAILED: "red"}


def run(argv: Sequence[str], env: Mapping[str, str]) -> int:
    """Carry out every check; 1 when one failed."""
    cut = argv.index("--") if "--" in argv else len(argv)
    words = read(__doc__, "doctor", argv[:cut])
    found = examine(scene_of(argv[cut + 1 :], env))
    documents = [
        {"check": check, "verdict": one.verdict.value, "message": one.sentence, "fix": one.fix}
        for check, one in found
    ]
    output.show(words, documents, lambda: _told(documents, stdout(env)), name="message")
    return FAILED if any(one.verdict is CheckStatus.FAILED for _, one in found) else 0


def scene_of(start_argv: Sequence[str], env: Mapping[str, str]) -> CheckContext:
    """The machine as ``gpustack start *start_argv`` would find it."""
    from gpustack.cli.address import find_server
    from gpustack.config.loader import load
    from gpustack.config.origin import ConfigError
    from gpustack.errors import GpustackError

    loaded, config_error = None, None
    # The same variable is where commands talk to and where a worker joins; only a worker has a token beside it.
    of_start = {
        name: value for name, value in env.items() if name != "GPUSTACK_SERVER_URL" or "GPUSTACK_TOKEN" in env
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
    return CheckContext(
        env=env, loaded=loaded, config_error=config_error, address=address, unreached=unreached
    )


def examine(scene: CheckContext) -> list[tuple[str, Finding]]:
    """Every check's findings, under its name; they are carried out side by side."""
    import trio

    from gpustack.plugins import siblings

    modules = siblings("gpustack.cli.checks")
    found: dict[str, list[Finding]] = {}

    async def one(name: str, module: Any) -> None:
        found[name] = await module.look(scene)

    async def all_of_them() -> None:
        async with trio.open_nursery() as nursery:
            for module in modules:
                nursery.start_soon(one, _name(module), module)

    trio.run(all_of_them)
    return [(name, finding) for name in map(_name, modules) for finding in found[name]]


def _name(module: Any) -> str:
    return str(module.__name__.rpartition(".")[2].replace("_", " "))


def _told(documents: Sequence[Mapping[str, str]], terminal: Terminal) -> str:
    width = max(len(one["check"]) for one in documents)
    lines = []
    for one in documents:
        verdict = terminal.style(f"{one['verdict']:<6}", _STYLES[CheckStatus(one["verdict"])])
        lines.append(f"{verdict}  {one['check']:<{width}}  {one['message']}")
        if one["fix"]:
            lines.append(f"{'':<{width + 10}}→ {one['fix']}")
    return "\n".join(lines)
