"""The options that all commands have in common, read before a command sees its own: ``--context`` and ``--dry-run``."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import attrs

from gpustack.cli.failure import UsageError
from gpustack.cli.main import WITHOUT_SERVER
from gpustack.cli.vocabulary import OPTION_COMMANDS, OptionEntry, options_of, text_of

CONTEXT = "--context"
DRY_RUN = "--dry-run"
_ONE_SERVER = ("GPUSTACK_SERVER_URL", "GPUSTACK_API_KEY")
_SHORTEST = len("--d")


@attrs.frozen(kw_only=True)
class CommonOptions:
    """What is left for the command to read, and the environment that it is to read it in."""

    argv: list[str]
    env: Mapping[str, str]


def read_common(name: str, argv: Sequence[str], env: Mapping[str, str]) -> CommonOptions:
    """Take ``--context`` out of a command line, and see whether it asks for a dry run. Raises UsageError.

    A context that the command line names goes before the variables of one server: those are not seen by the command,
    so that no key goes to a server that it was not meant for.
    """
    from gpustack.cli.server_context import VARIABLE
    from gpustack.cli.session import DRY_RUN_VARIABLE

    if name in OPTION_COMMANDS:
        return CommonOptions(argv=list(argv), env=env)
    walk = _walk(name, argv)
    env = {name: value for name, value in env.items() if name != DRY_RUN_VARIABLE}
    if walk.context is not None:
        if name in WITHOUT_SERVER:
            raise UsageError(f"gpustack {name} talks to no server: {CONTEXT} is not for it")
        env = {name: value for name, value in env.items() if name not in _ONE_SERVER}
        env[VARIABLE] = walk.context
    if walk.is_dry:
        env[DRY_RUN_VARIABLE] = walk.form
    return CommonOptions(argv=walk.argv, env=env)


@attrs.define
class _Walk:
    argv: list[str] = attrs.field(factory=list)
    context: str | None = None
    is_dry: bool = False
    form: str = "table"


def _walk(name: str, argv: Sequence[str]) -> _Walk:
    """A word that is the value of another option is none of ours; what follows ``--`` neither."""
    options, walk, left = options_of(text_of(name)), _Walk(), list(argv)
    knows_dry_run = any(option.name == DRY_RUN for option in options)
    while left:
        word = left.pop(0)
        if word == "--":
            walk.argv += [word, *left]
            break
        if word == CONTEXT or word.startswith(f"{CONTEXT}="):
            if word == CONTEXT and not left:
                raise UsageError(f"{CONTEXT} needs a name; gpustack context lists them")
            walk.context = word.partition("=")[2] if "=" in word else left.pop(0)
            continue
        walk.argv.append(word)
        # The command takes what no other option of its begins with, too.
        if knows_dry_run and len(word) >= _SHORTEST and DRY_RUN.startswith(word):
            walk.is_dry = True
            continue
        option = _valued(word, options)
        value = word.partition("=")[2]
        if option is not None and "=" not in word and left:
            value = left.pop(0)
            walk.argv.append(value)
        if option is not None and option.name == "--output" and value in ("json", "yaml"):
            walk.form = value
    return walk


def _valued(word: str, options: Sequence[OptionEntry]) -> OptionEntry | None:
    """The option with a value that a word is, or that it begins like; ``None`` for everything else."""
    if not word.startswith("-") or word == "-":
        return None
    if word.startswith("--"):
        begin = word.partition("=")[0]
        exact = [option for option in options if option.name == begin]
        meant = exact or [option for option in options if option.name.startswith(begin)]
        return meant[0] if len(meant) == 1 and meant[0].value is not None else None
    for at, letter in enumerate(word[1:], 1):
        option = next((one for one in options if one.short == f"-{letter}"), None)
        if option is not None and option.value is not None:
            return option if at == len(word) - 1 else None
    return None
