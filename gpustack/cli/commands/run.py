"""Run a model: deploy it if it is not, wait until it is ready, and talk with it.

Usage:
  gpustack run [options] [-p ARG]... [-e VAR]... [--gpu ID]... [--selector LABEL]...
               [--lora ADAPTER]... [--] MODEL [PROMPT...]

MODEL is the name of a deployment, a path (./model.gguf, or . for this folder), a repository of Hugging Face
(ORGANISATION/REPOSITORY, with :TAG or :FILE behind it to say which file of a GGUF repository; if not said, the one of
about four bits) or of ModelScope (ms:ORGANISATION/REPOSITORY), or a model of the Ollama library (ollama:NAME:TAG).
What is on disk goes before a repository of the same name. Without PROMPT it is read from stdin where that is not a
terminal; else you talk until you leave (\\h for help). The model stays deployed, unless it was deployed for this and
cannot run.

Options:
  -d, --detach          Do not talk: end when the model is ready.
  --timeout=SECONDS     Give up waiting after so long, with exit code 124; the model stays deployed (default: 1800,
                        or 0, which is without end, where stderr is a terminal).
  -s, --system=TEXT     What the model is told before anything else.
  --temperature=NUMBER  How freely it answers; the engine's own default if not given.
  --max-tokens=NUMBER   How long an answer may get.
  --stats               Tell after each answer how many tokens came how fast.
  --no-history          Keep no questions for later chats; see gpustack chat --help.
  --dry-run             Only tell what would be changed.
  -h, --help            Show this help.

Options of a new deployment:
  --name=NAME           Its name (default: that of the repository or file).
  --replicas=NUMBER     How many instances (default: 1).
  --priority=NUMBER     From -1000 to 1000: instances that wait get places in this order, the highest first; also of a
                        model that is deployed (default: 0).
  --preempts            Where it fits nowhere, let instances of models of lower priority end for it.
  --backend=ENGINE      llama-box, vllm, sglang, ascend-mindie, tei, transformers, vox-box, diffusers, custom.
  --command=TEXT        What custom runs, such as "my-server --port {port} --model {model_path}".
  -p, --param=ARG       An argument for the engine, such as ctx-size=16384; may be repeated.
  -e, --env=VAR         A variable for the engine, NAME=VALUE; may be repeated.
  --cpu                 Use no GPU.
  --gpu=ID              Use this GPU, WORKER:TYPE:INDEX; may be repeated.
  --selector=LABEL      Only on workers with this label, NAME=VALUE; may be repeated.
  --lora=ADAPTER        A LoRA adapter, NAME=SOURCE with SOURCE as for MODEL: it answers as <deployment>:NAME; may be
                        repeated.
  --access=WHO          Who may use it: public (anybody) or authed (whoever has an account; so if not said).
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from gpustack.cli.command_line import CommandLine, read
from gpustack.cli.commands.chat import sampling_fields, talk
from gpustack.cli.failure import WaitTimeout
from gpustack.cli.session import Doc, ServerSession, open_session
from gpustack.cli.terminal import Terminal, stderr
from gpustack.errors import GpustackError

if TYPE_CHECKING:
    from gpustack.cli.deployment import Deployment
    from gpustack.cli.progress import DeploymentFailure
    from gpustack.remote.admin_client import AdminClient

_UNATTENDED = 1800
"""Seconds that a script waits without ``--timeout``: enough for a large download."""
_LOG_LINES = 15


def run(argv: Sequence[str], env: Mapping[str, str]) -> int:
    """Deploy, wait, talk. After Ctrl-C or a timeout the model stays deployed, which is told."""
    command_line = read(__doc__, "run", argv)
    options, fields = sampling_fields(command_line), deployment_fields(command_line)
    aside = stderr(env)
    limit = wait_limit(command_line, attended=aside.stream.isatty())
    session = open_session(env)
    from gpustack.cli.deployment import find_or_deploy
    from gpustack.cli.progress import DeploymentFailure

    text, name = command_line.required("MODEL"), command_line.text("--name")
    made = session.run(lambda client: find_or_deploy(client, text, name, fields, aside))
    model = made.model
    if command_line.flag("--dry-run"):
        print(f"{model['name']} is deployed already: nothing would change")
        return 0
    if made.is_new:
        aside.say(f"deployed as {model['name']}")
    # A ready model is not waited for: who may use it is perhaps not allowed to see its instances.
    is_ready = not made.is_new and bool(model.get("ready_replicas"))
    try:
        if not is_ready:
            session.run(lambda client: _wait(client, model, aside, limit))
    except (KeyboardInterrupt, WaitTimeout):
        aside.clear()
        aside.say(_stays(model))
        raise
    except DeploymentFailure as failure:
        aside.clear()
        _clear_away(session, made, failure, aside)
        raise
    if command_line.flag("--detach"):
        return 0
    # Its categories are known only once its header has been read.
    now = session.run(lambda client: client.get(f"/v1/models/{model['id']}"))
    return talk(session, now, command_line, options, env)


def wait_limit(command_line: CommandLine, *, attended: bool) -> float:
    """Seconds to wait for the model at most; raises UsageError."""
    asked = command_line.whole("--timeout")
    if asked is None:
        return float("inf") if attended else _UNATTENDED
    return asked or float("inf")


def deployment_fields(command_line: CommandLine) -> Doc:
    """The fields of a new deployment that options set; raises UsageError."""
    fields = _adjustable(command_line)
    fields.update(_engine(command_line))
    parameters = [text if text.startswith("-") else f"--{text}" for text in command_line.many("--param")]
    gpus = [gpu for text in command_line.many("--gpu") for gpu in text.split(",") if gpu]
    if command_line.flag("--cpu"):
        if gpus:
            raise command_line.error("--cpu and --gpu exclude each other")
        parameters.append("--gpu-layers=0")
    if parameters:
        fields["backend_parameters"] = parameters
    if gpus:
        fields["gpu_selector"] = {"gpu_ids": gpus}
    if command_line.many("--env"):
        fields["env"] = _pairs(command_line, "--env")
    if command_line.many("--selector"):
        fields["worker_selector"] = _pairs(command_line, "--selector")
    if command_line.many("--lora"):
        fields["lora_adapters"] = _adapters(command_line)
    if command_line.text("--access") is not None:
        fields["access_policy"] = command_line.choice("--access", "public", "authed")
    return fields


def _adjustable(command_line: CommandLine) -> Doc:
    """What may be asked of a model that is deployed, too."""
    from gpustack.domain.model import LEAST_PRIORITY, MOST_PRIORITY

    fields = {
        "replicas": command_line.whole("--replicas", least=1),
        "priority": command_line.whole("--priority", least=LEAST_PRIORITY, most=MOST_PRIORITY),
        "preempts": command_line.flag("--preempts") or None,
    }
    return {name: value for name, value in fields.items() if value is not None}


def _engine(command_line: CommandLine) -> Doc:
    command, backend = command_line.text("--command"), command_line.text("--backend")
    if command is None:
        return {} if backend is None else {"backend": backend}
    if backend not in (None, "custom"):
        raise command_line.error(f"--command is for --backend=custom, not {backend}")
    return {"backend": "custom", "command": command}


def _pairs(command_line: CommandLine, option: str) -> dict[str, str]:
    pairs = {}
    for text in command_line.many(option):
        name, equals, value = text.partition("=")
        if not name or not equals:
            raise command_line.error(f"{option} must be NAME=VALUE, not {text!r}")
        pairs[name] = value
    return pairs


def _adapters(command_line: CommandLine) -> list[Doc]:
    pairs = _pairs(command_line, "--lora")
    if len(pairs) < len(command_line.many("--lora")):
        raise command_line.error("--lora names an adapter twice: each needs a name of its own")
    return [{"name": name, **_adapter_source(command_line, text)} for name, text in pairs.items()]


def _adapter_source(command_line: CommandLine, text: str) -> Mapping[str, str]:
    """The fields of an adapter's source. A file of a repository stands behind a colon."""
    from pathlib import Path

    from gpustack.cli.repository import FILE_FIELD
    from gpustack.cli.source import read_source

    asked = read_source(text, Path.cwd())
    if asked is None:
        raise command_line.error(f"--lora must be NAME=SOURCE with a path or a repository, not {text!r}")
    named = {FILE_FIELD[asked.fields["source"]]: asked.file} if asked.file else {}
    return {**asked.fields, **named}


async def _wait(client: AdminClient, model: Doc, aside: Terminal, limit: float) -> Doc:
    import trio

    from gpustack.cli.progress import DeploymentProgress, until_ready

    progress = DeploymentProgress(model=str(model["name"]), terminal=aside, now=time.monotonic)
    with trio.move_on_after(limit):
        return await until_ready(client, model, progress)
    raise WaitTimeout(f"{model['name']} was not ready within {limit:.0f} s (--timeout)")


def _stays(model: Doc) -> str:
    name = model["name"]
    return f"{name} stays deployed: gpustack ps {name} shows it, gpustack rm {name} removes it."


def _clear_away(
    session: ServerSession, made: Deployment, failure: DeploymentFailure, aside: Terminal
) -> None:
    """Show the last lines of the engine, and remove the deployment again if it was made for this call."""
    from gpustack.cli.lookup import MODELS

    if failure.instance is not None and failure.instance.get("worker_id") is not None:
        session.run(lambda client: _show_log(client, failure.instance or {}, aside))
    if not made.is_new:
        aside.say(_stays(made.model))
        return
    try:
        session.run(lambda client: client.delete(f"{MODELS}/{made.model['id']}"))
    except GpustackError as error:
        aside.say(f"{_stays(made.model)} It could not be removed ({error}).")
    else:
        is_local = made.model.get("source") == "local_path"
        aside.say(
            f"{made.model['name']} is removed again{'' if is_local else '; what was downloaded stays'}."
        )


async def _show_log(client: AdminClient, instance: Doc, aside: Terminal) -> None:
    """The last lines that the engine wrote; nothing where there was no engine, or its worker cannot be asked."""
    from gpustack.cli.lookup import INSTANCES

    text = b""
    try:
        path = f"{INSTANCES}/{instance['id']}/logs"
        async with client.text(path, follow=False, tail=_LOG_LINES) as pieces:
            async for piece in pieces:
                text += piece
    except GpustackError:
        return
    lines = text.decode(errors="replace").splitlines()[-_LOG_LINES:]
    if lines:
        aside.say("The engine wrote last:")
    for line in lines:
        aside.say(aside.style(f"  {line}", "dim"))
