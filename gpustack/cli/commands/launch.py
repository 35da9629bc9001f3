"""Start a program that uses a model of this server, such as claude, codex or aider.

Usage:
  gpustack launch [options]
  gpustack launch [options] CLIENT
  gpustack launch [options] CLIENT -- ARGUMENT...

Without CLIENT it lists the programs that it knows and whether they are installed. The program gets a key of its own,
which may infer with that one model; the key ends with the program. Where the program takes settings from its
environment no file is changed; else its file is changed for as long as it runs, comments stay, and it is brought back
byte for byte. What follows -- goes to the program. A program is described by a file; your own are read from
~/.config/gpustack/clients/NAME.yaml. docs/launch.md has the form of it.

Options:
  --model=MODEL      The model (default: the only one that chats).
  --restore          Bring back what launches have left: after a crash, or of an editor that goes on by itself.
  --forget           With --restore: forget also what cannot be brought back.
  --dry-run          Only tell what would be changed and run.
  -o, --output=FORM  table, json or yaml (default: table).
  -q, --quiet        Names only.
  -h, --help         Show this help.
"""

from __future__ import annotations

import os
import shlex
import signal
import subprocess
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import attrs

from gpustack.cli import output
from gpustack.cli.command_line import CommandLine, read
from gpustack.cli.dry_run import intend
from gpustack.cli.failure import FAILED
from gpustack.cli.installation import split_start_options
from gpustack.cli.output import Cell, Row
from gpustack.cli.session import Doc, ServerSession, open_session
from gpustack.cli.terminal import Terminal, stderr
from gpustack.errors import GpustackError, NotFound

if TYPE_CHECKING:
    from gpustack.cli.client_program import ClientProgram, Launch
    from gpustack.cli.launch_record import ClientLaunch
    from gpustack.remote.admin_client import AdminClient

_HEADS = ("NAME", "PROGRAM", "INSTALLED")
_KEY = "the key"
_LEAST_TALK = 4096
"""Tokens that are to be left for the conversation."""
_LEAST_WINDOW = 32768
"""Tokens that an agent should have, whatever it sends at first."""
_PASSED_ON = (signal.SIGTERM, signal.SIGHUP)


def run(argv: Sequence[str], env: Mapping[str, str]) -> int:
    """Run the program and return its exit code, or print a row for each that is known."""
    own, arguments = split_start_options(argv)
    command_line = read(__doc__, "launch", [*own, *(["--", *arguments] if arguments else [])])
    name = command_line.text("CLIENT")
    if command_line.flag("--restore"):
        return _restore(name, env, forget=command_line.flag("--forget"))
    if name is None:
        return _list(command_line, env)
    from gpustack.cli.client_program import client_named

    client, aside = client_named(name, env), stderr(env)
    program = client.found(env)
    if program is None:
        raise NotFound(
            f"{client.title} is not installed ({' or '.join(client.programs)} is not on PATH): {client.install}"
            + (f"; {client.page}" if client.page else "")
        )
    session = open_session(env)
    found = session.run(lambda asking: _model(asking, command_line.text("--model")))
    model = str(found["name"])
    if (note := _window_note(client, found)) is not None:
        aside.say(note)
    return _launch(session, client, program, model, arguments, env, aside)


def _list(command_line: CommandLine, env: Mapping[str, str]) -> int:
    from gpustack.cli.client_program import clients

    documents = [
        {
            "name": one.name,
            "title": one.title,
            "speaks": one.speaks,
            "program": one.found(env),
            "install": one.install,
            "page": one.page,
        }
        for one in clients(env).values()
    ]
    output.show_list(command_line, documents, _HEADS, _row, env)
    return 0


def _row(client: Doc) -> Row:
    found = client["program"]
    return Row([str(client["name"]), str(client["title"]), Cell("yes", "green") if found else "-"])


async def _model(client: AdminClient, name: str | None) -> Doc:
    """The model; raises NotFound with what there is."""
    from gpustack.cli.lookup import MODELS, answering

    if name is not None:
        return await answering(client, name)
    chatting = [
        model
        for model in await client.all(MODELS)
        if "llm" in (model.get("categories") or ()) and model.get("ready_replicas")
    ]
    if len(chatting) == 1:
        return chatting[0]
    if not chatting:
        raise NotFound(
            "No model that chats is ready; gpustack run MODEL deploys one, gpustack ls shows what there is"
        )
    raise NotFound(f"Say which model with --model: {', '.join(str(model['name']) for model in chatting)}")


def _window_note(client: ClientProgram, model: Doc) -> str | None:
    """What to do about a window that the program's own instructions fill; ``None`` where they do not, as far as can be
    told."""
    from gpustack.cli.model_window import window_flag, window_of

    sent = client.prompt_tokens
    window = None if sent is None else window_of(model)
    if sent is None or window is None or sent + _LEAST_TALK <= window:
        return None
    flag, wanted = window_flag(model), max(_LEAST_WINDOW, 1 << sent.bit_length())
    how = f"give it {flag}={wanted} at least" if flag else "give it a longer one"
    return (
        f"{client.title} sends about {sent} tokens before your first word, and the window of "
        f"{model['name']} is {window}: {how} (in the console, or as a backend parameter of its manifest)"
    )


def _launch(
    session: ServerSession,
    client: ClientProgram,
    program: str,
    model: str,
    arguments: Sequence[str],
    env: Mapping[str, str],
    aside: Terminal,
) -> int:
    from gpustack.cli import launch_record
    from gpustack.cli.client_program import Launch, config_of, home_of
    from gpustack.cli.launch_record import ClientLaunch, planned

    settled = {"url": session.address.url, "model": model, "home": home_of(env), "config": config_of(env)}
    launch = Launch(key=_KEY, **settled)
    command = _command(client, program, launch, arguments)
    trial = planned(launch.settings(client))
    told = [
        f"change {changed.path}" if changed.before is not None else f"write {changed.path}"
        for changed, _ in trial
    ]
    intend(
        env,
        f"make a key that may infer with {model} alone",
        *([f"set {', '.join(client.environment)} for it"] if client.environment else []),
        *told,
        f"run {shlex.join(command)}",
    )
    for left in launch_record.records(env, client.name):
        if left.files and not left.runs:
            _bring_back(session, left, env, aside)
    record = ClientLaunch(
        client=client.name,
        pid=os.getpid(),
        server=session.address.url,
        key_name=f"launch-{client.name}-{os.uname().nodename}-{os.getpid()}"[:100],
        stays=client.stays,
    )
    launch_record.write_record(record, env)
    done = False
    try:
        made = session.run(lambda asking: _make_key(asking, record.key_name, model))
        record = attrs.evolve(record, key_id=int(made["id"]))
        launch = Launch(key=str(made["value"]), **settled)
        files = planned(launch.settings(client))
        record = attrs.evolve(record, files=tuple(changed for changed, _ in files))
        launch_record.write_record(record, env)
        for changed, text in files:
            launch_record.write_file(changed, text, private=launch.key in text)
        aside.say(f"{client.title} uses {model} of {session.address.url}")
        code = _run(command, launch.environment(client, env))
        done = True
    finally:
        if client.stays or not done:
            _bring_back(session, record, env, aside)
    if not client.stays:
        aside.say(
            f"{client.title} goes on by itself; gpustack launch {client.name} --restore brings its settings back."
        )
    return code


def _command(client: ClientProgram, program: str, launch: Launch, arguments: Sequence[str]) -> list[str]:
    return [
        program,
        *launch.filled(list(client.arguments)),
        *(arguments or launch.filled(list(client.defaults))),
    ]


async def _make_key(client: AdminClient, name: str, model: str) -> Doc:
    from gpustack.cli.lookup import KEYS

    return await client.create(KEYS, {"name": name, "scopes": ["inference"], "allowed_model_names": [model]})


def _run(command: Sequence[str], env: Mapping[str, str]) -> int:
    """Run the program in this terminal and return its exit code. Ctrl-C is the program's to hear."""
    try:
        child = subprocess.Popen(command, env=dict(env))
    except OSError as error:
        raise GpustackError(f"{command[0]} cannot be run: {error.strerror}") from error
    former = {one: signal.signal(one, lambda number, _: child.send_signal(number)) for one in _PASSED_ON}
    former[signal.SIGINT] = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        code = child.wait()
    finally:
        for one, handler in former.items():
            signal.signal(one, handler)
    return code if code >= 0 else 128 - code


def _restore(name: str | None, env: Mapping[str, str], *, forget: bool) -> int:
    from gpustack.cli import launch_record

    found = launch_record.records(env, name)
    aside = stderr(env)
    running = [one for one in found if one.runs]
    left = [one for one in found if not one.runs]
    for one in running:
        aside.say(f"{one.client} still runs (process {one.pid}), and brings back by itself when it ends.")
    if not left:
        aside.say("There is nothing to bring back.")
        return 0
    intend(
        env,
        *(f"bring {file.path} back" for one in left for file in one.files),
        *(f"remove the key {one.key_name} of {one.server}" for one in left if one.key_id is not None),
    )
    good = [_bring_back(_session_of(one, env), one, env, aside, forget=forget) for one in left]
    return 0 if all(good) else FAILED


def _session_of(record: ClientLaunch, env: Mapping[str, str]) -> ServerSession | None:
    """The session with the server of the launch, if that is the one that commands talk to now."""
    try:
        session = open_session(env)
    except GpustackError:
        return None
    return session if session.address.url == record.server else None


def _bring_back(
    session: ServerSession | None,
    record: ClientLaunch,
    env: Mapping[str, str],
    aside: Terminal,
    *,
    forget: bool = False,
) -> bool:
    """Bring all of a launch back, each part even if another fails; whether all is done. The record stays until then."""
    from gpustack.cli import launch_record

    faults = []
    for file in record.files:
        try:
            aside.say(launch_record.bring_back(file))
        except GpustackError as error:
            faults.append(str(error))
    if record.key_id is not None or session is not None:
        try:
            if session is None:
                raise GpustackError(
                    f"it is of {record.server}, and commands talk to another server: --context NAME"
                )
            session.run(lambda asking: _remove_key(asking, record))
        except GpustackError as error:
            faults.append(f"The key {record.key_name} is not removed: {error}")
    for fault in faults:
        aside.say(f"gpustack: {fault}")
    if not faults or forget:
        launch_record.forget(record, env)
    return not faults


async def _remove_key(client: AdminClient, record: ClientLaunch) -> None:
    """By its name: after a crash its number may not have been written down."""
    from gpustack.cli.lookup import KEYS

    for key in await client.all(KEYS):
        if key.get("name") == record.key_name:
            await client.delete(f"{KEYS}/{key['id']}")
