"""Talk with a deployed model, or ask it once.

Usage:
  gpustack chat [options] [--] MODEL [PROMPT...]

Without PROMPT it is read from stdin where that is not a terminal; else you talk until you leave (\\h for help).

Options:
  -s, --system=TEXT     What the model is told before anything else.
  --temperature=NUMBER  How freely it answers; the engine's own default if not given.
  --max-tokens=NUMBER   How long an answer may get.
  --stats               Tell after each answer how many tokens came how fast.
  --no-history          Keep no questions for later chats. They are kept in ~/.local/state/gpustack/chat-history,
                        for you alone to read; GPUSTACK_CHAT_HISTORY names another file, or is off.
  -h, --help            Show this help.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from typing import Any

from gpustack.cli.misuse import FAILED, UsageError
from gpustack.cli.session import ServerSession, open_session
from gpustack.cli.terminal import stderr, stdout
from gpustack.cli.usage import CommandLine, read


def run(argv: Sequence[str], env: Mapping[str, str]) -> int:
    """Talk; 1 when the model is none to talk to."""
    words = read(__doc__, "chat", argv)
    options = sampling(words)
    from gpustack.cli.lookup import model_named

    session, name = open_session(env), words.text("MODEL") or ""
    model = session.run(lambda client: model_named(client, name))
    return talk(session, model, words, options, env)


def sampling(words: CommandLine) -> dict[str, Any]:
    """The fields of a request that the options set; raises Misuse."""
    found: dict[str, Any] = {}
    temperature = words.text("--temperature")
    if temperature is not None:
        try:
            found["temperature"] = float(temperature)
        except ValueError:
            raise UsageError(f"--temperature must be a number, not {temperature!r}", words.usage) from None
    most = words.whole("--max-tokens", least=1)
    return found if most is None else {**found, "max_tokens": most}


def talk(
    session: ServerSession,
    model: Mapping[str, Any],
    words: CommandLine,
    options: Mapping[str, Any],
    env: Mapping[str, str],
) -> int:
    """Talk with the model as the words of ``chat`` or ``run`` say; the exit code."""
    from gpustack.cli.history import history_of
    from gpustack.cli.talk import Talk, chats, converse, how_to_call

    if not chats(model):
        print(how_to_call(model, session.address.url, key=session.address.key is not None), file=sys.stderr)
        return FAILED if words.many("PROMPT") else 0
    talk = Talk(
        session=session,
        model=str(model["name"]),
        out=stdout(env),
        aside=stderr(env),
        system=words.text("--system"),
        options=options,
        history=None if words.flag("--no-history") else history_of(env),
        stats=words.flag("--stats"),
    )
    converse(talk, " ".join(words.many("PROMPT")) or None)
    return 0
