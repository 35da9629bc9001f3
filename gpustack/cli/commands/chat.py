"""Talk with a deployed model, or ask it once.

Usage:
  gpustack chat [options] [--] MODEL [PROMPT...]

Without PROMPT it is read from stdin where that is not a terminal; else you talk until you leave (\\h for help).
MODEL:ADAPTER talks with a LoRA adapter.

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

from collections.abc import Mapping, Sequence
from typing import Any

from gpustack.cli.command_line import CommandLine, given_only, read
from gpustack.cli.failure import FAILED
from gpustack.cli.session import ServerSession, open_session
from gpustack.cli.terminal import stderr, stdout


def run(argv: Sequence[str], env: Mapping[str, str]) -> int:
    """Talk; 1 when a prompt was given for a model that is no chat model."""
    command_line = read(__doc__, "chat", argv)
    options = sampling_fields(command_line)
    from gpustack.cli.lookup import answering

    session, name = open_session(env), command_line.required("MODEL")
    model = session.run(lambda client: answering(client, name))
    return talk(session, model, command_line, options, env)


def sampling_fields(command_line: CommandLine) -> dict[str, Any]:
    """The fields of a request that the options set; raises UsageError."""
    return given_only(
        {
            "temperature": command_line.number("--temperature"),
            "max_tokens": command_line.whole("--max-tokens", least=1),
        }
    )


def talk(
    session: ServerSession,
    model: Mapping[str, Any],
    command_line: CommandLine,
    options: Mapping[str, Any],
    env: Mapping[str, str],
) -> int:
    """Talk with the model as the command line of ``chat`` or ``run`` says; returns the exit code."""
    from gpustack.cli.chat import ChatSession, converse, how_to_call, is_chat_model
    from gpustack.cli.history import history_of

    if not is_chat_model(model):
        stderr(env).say(how_to_call(model, session.address.url, key=session.address.key is not None))
        return FAILED if command_line.many("PROMPT") else 0
    talk = ChatSession(
        session=session,
        model=str(model["name"]),
        out=stdout(env),
        aside=stderr(env),
        system=command_line.text("--system"),
        options=options,
        history=None if command_line.flag("--no-history") else history_of(env),
        stats=command_line.flag("--stats"),
    )
    converse(talk, " ".join(command_line.many("PROMPT")) or None)
    return 0
