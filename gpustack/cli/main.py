"""The ``gpustack`` command: finds the sub-command by its file in ``commands/``, runs it and returns its exit code.

Beside the standard library only ``failure``, errors and text are imported here: ``gpustack --help`` is asked often,
and answers in the time Python starts.
"""

from __future__ import annotations

import importlib
import io
import os
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import cast

from gpustack.cli.failure import FAILED, DryRunEnd, UsageError, report
from gpustack.errors import GpustackError
from gpustack.text import is_text, printable

Command = Callable[[Sequence[str], Mapping[str, str]], int]

WITHOUT_SERVER = (
    *("start", "config", "doctor", "hardware", "download-tools", "backup", "restore", "db", "import"),
    *("estimate", "context", "version", "completion"),
)
"""Commands that talk to no server, or to none that could be chosen."""
_CONTEXT = "--context"

_COMMANDS = Path(__file__).parent / "commands"


def main(argv: Sequence[str] | None = None, env: Mapping[str, str] | None = None) -> int:
    """Run ``gpustack *argv`` and return its exit code. ``None`` takes this process's own."""
    given = list(sys.argv[1:] if argv is None else argv)
    _replace_unprintable()
    try:
        code = _dispatch(given, os.environ if env is None else env)
        sys.stdout.flush()
    except BrokenPipeError:
        # Whoever read our output has seen enough; at exit Python would flush again and complain.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return FAILED
    except (GpustackError, KeyboardInterrupt, BaseExceptionGroup) as error:
        return report(error)
    return code


def _replace_unprintable() -> None:
    """Have stdin and stdout show a question mark for a character that this locale does not have, not raise."""
    for stream in (sys.stdin, sys.stdout):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")


def _dispatch(argv: list[str], env: Mapping[str, str]) -> int:
    if not argv or argv[0] in ("-h", "--help") or argv == ["help"]:
        print(usage(), end="")
        return 0
    for word in argv:
        if not is_text(word):
            raise UsageError(f"The argument {printable(word)} is no text in this locale: write it in UTF-8")
    name, *rest = argv
    if name == _CONTEXT or name.startswith(f"{_CONTEXT}="):
        name, rest = _behind(name, rest)
    if name == "help":
        name, rest = rest[0], ["--help"]
    elif name in ("-V", "--version"):
        name = "version"
    if name not in names():
        raise UsageError(f"gpustack: {_unknown(name)}")
    if env is os.environ:
        from gpustack.config.variable import trim

        trim(os.environ)
    return _run(name, rest, env)


def _run(name: str, argv: list[str], env: Mapping[str, str]) -> int:
    if any(word.startswith("--") for word in argv):
        from gpustack.cli.common_option import read_common

        common = read_common(name, argv, env)
        argv, env = common.argv, common.env
    try:
        return command(name)(argv, env)
    except DryRunEnd as end:
        from gpustack.cli.dry_run import told

        print(told(end, env))
        return 0


def _behind(word: str, rest: list[str]) -> tuple[str, list[str]]:
    """The command, and what follows it, with a ``--context`` that stands before the command behind it."""
    value = [] if "=" in word else rest[:1]
    if len(rest) <= len(value):
        raise UsageError("gpustack: --context NAME stands beside a command; gpustack --help lists them")
    name, *others = rest[len(value) :]
    return name, [word, *value, *others]


def names() -> list[str]:
    """Every command, in the order of the alphabet."""
    found = (file.stem for file in _COMMANDS.glob("*.py"))
    return sorted(stem.replace("_", "-") for stem in found if not stem.startswith("_"))


def command(name: str) -> Command:
    """The function behind a command; this is what imports it."""
    module = importlib.import_module(f"gpustack.cli.commands.{name.replace('-', '_')}")
    return cast(Command, module.run)


def summary(name: str) -> str:
    """What a command does: the first line of its file, read without importing it."""
    with (_COMMANDS / f"{name.replace('-', '_')}.py").open(encoding="utf-8") as file:
        return file.readline().strip().strip('"')


def usage() -> str:
    """The text of ``gpustack --help``."""
    width = max(map(len, names()))
    lines = [f"  {name:<{width}}  {summary(name)}" for name in names()]
    return "\n".join([_HEAD, *lines, "", _foot()]) + "\n"


def _foot() -> str:
    import textwrap

    *names, last = WITHOUT_SERVER
    text = f"Commands other than {', '.join(names)} and {last} talk to a server: {_FOOT}"
    return textwrap.fill(text, 110)


_HEAD = """\
GPUStack turns any set of machines into one OpenAI-compatible service for AI models.

Usage:
  gpustack COMMAND [OPTIONS] [ARGUMENTS]
  gpustack COMMAND --help

Commands:"""

_FOOT = (
    "that of --context NAME (gpustack context lists them), else of GPUSTACK_SERVER_URL with the key GPUSTACK_API_KEY, "
    "else of GPUSTACK_CONTEXT or the context in use, else the one on this machine. Commands that change something have "
    "--dry-run."
)


def _unknown(name: str) -> str:
    from gpustack.cli.command_line import suggestion

    known = [*names(), "help", "--help", "--version"]
    return f"There is no command {name!r}; {suggestion(name, known, 'gpustack --help lists them.')}"
