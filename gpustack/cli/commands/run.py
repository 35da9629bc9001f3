"""Run a model: deploy it if it is not, wait until it is ready, and talk with it.

Usage:
  gpustack run [options] [-p ARG]... [-e VAR]... [--gpu ID]... [--selector LABEL]... [--] MODEL [PROMPT...]

MODEL is the name of a deployment, a path (./model.gguf), or a repository of Hugging Face (ORGANISATION/REPOSITORY,
with :TAG or :FILE behind it to say which file of a GGUF repository; Q4_K_M if not said). Without PROMPT it is read
from stdin where that is not a terminal; else you talk until you leave (\\h for help). The model stays deployed.

Options:
  -d, --detach          Do not talk: end when the model is ready.
  --timeout=SECONDS     Give up waiting after so long; the model stays deployed.
  -s, --system=TEXT     What the model is told before anything else.
  --temperature=NUMBER  How freely it answers; the engine's own default if not given.
  --max-tokens=NUMBER   How long an answer may get.
  -h, --help            Show this help.

Options of a new deployment:
  --name=NAME           Its name (default: that of the repository or file).
  --replicas=NUMBER     How many instances (default: 1).
  --backend=ENGINE      llama-box (llama.cpp), vllm, sglang, vox-box or custom (default: the one that fits).
  -p, --param=ARG       An argument for the engine, such as ctx-size=16384; may be repeated.
  -e, --env=VAR         A variable for the engine, NAME=VALUE; may be repeated.
  --cpu                 Use no GPU.
  --gpu=ID              Use this GPU, WORKER:TYPE:INDEX; may be repeated.
  --selector=LABEL      Only on workers with this label, NAME=VALUE; may be repeated.
  --access=WHO          Who may use it: public (anybody) or authed (whoever has an account; so if not said).
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gpustack.cli.address import is_local
from gpustack.cli.commands.chat import sampling, talk
from gpustack.cli.misuse import Misuse
from gpustack.cli.session import open_session
from gpustack.cli.source import Asked, read_source
from gpustack.cli.terminal import Terminal, stderr
from gpustack.cli.usage import Words, read
from gpustack.errors import AlreadyExists, Conflict, GatewayTimeout, NotFound

if TYPE_CHECKING:
    from gpustack.remote.admin_client import AdminClient

Doc = dict[str, Any]

_OF_NEW = ("--name", "--backend", "--param", "--env", "--cpu", "--gpu", "--selector", "--access")


def run(argv: Sequence[str], env: Mapping[str, str]) -> int:
    """Deploy, wait, talk. Left early, the model stays deployed and says so."""
    words = read(__doc__, "run", argv)
    options, fields, patience = sampling(words), wanted(words), words.whole("--timeout", least=1)
    session, aside = open_session(env), stderr(env)
    model = session.run(lambda client: _deployed(client, words, fields, aside))
    try:
        session.run(lambda client: _wait(client, model, aside, patience))
    except (KeyboardInterrupt, GatewayTimeout):
        aside.clear()
        name = model["name"]
        aside.say(f"{name} stays deployed: gpustack ps {name} shows it, gpustack rm {name} removes it.")
        raise
    if words.flag("--detach"):
        return 0
    # What it answers is known only once its header has been read.
    now = session.run(lambda client: client.get(f"/v1/models/{model['id']}"))
    return talk(session, now, words, options, env)


def wanted(words: Words) -> Doc:
    """The fields of a new deployment that options set; raises Misuse."""
    fields: Doc = {}
    replicas = words.whole("--replicas", least=1)
    if replicas is not None:
        fields["replicas"] = replicas
    if words.text("--backend"):
        fields["backend"] = words.text("--backend")
    parameters = [text if text.startswith("-") else f"--{text}" for text in words.many("--param")]
    gpus = [gpu for text in words.many("--gpu") for gpu in text.split(",") if gpu]
    if words.flag("--cpu"):
        if gpus:
            raise Misuse("--cpu and --gpu exclude each other", words.usage)
        parameters.append("--gpu-layers=0")
    if parameters:
        fields["backend_parameters"] = parameters
    if gpus:
        fields["gpu_selector"] = {"gpu_ids": gpus}
    if words.many("--env"):
        fields["env"] = _pairs(words, "--env")
    if words.many("--selector"):
        fields["worker_selector"] = _pairs(words, "--selector")
    if words.text("--access") is not None:
        fields["access_policy"] = words.choice("--access", "public", "authed")
    return fields


def _pairs(words: Words, option: str) -> dict[str, str]:
    pairs = {}
    for text in words.many(option):
        name, equals, value = text.partition("=")
        if not name or not equals:
            raise Misuse(f"{option} must be NAME=VALUE, not {text!r}", words.usage)
        pairs[name] = value
    return pairs


async def _deployed(client: AdminClient, words: Words, fields: Doc, aside: Terminal) -> Doc:
    """The model as deployed now, made or started if need be."""
    from gpustack.cli.lookup import MODELS, find, model_named

    text = words.text("MODEL") or ""
    model = await find(client, MODELS, text)
    if model is None:
        asked = read_source(text, Path.cwd())
        if asked is None:
            raise await _unknown(client, text)
        name = words.text("--name") or asked.name
        model = await find(client, MODELS, name)
        if model is None:
            return await _create(client, {"name": name, **asked.fields, **fields}, asked, aside)
        _same_source(model, asked)
    given = [option for option in _OF_NEW if words.found[option] not in (None, [], False)]
    if given:
        raise Conflict(
            f"{model['name']} is deployed already, and {given[0]} is for a new deployment: remove it first with "
            f"gpustack rm {model['name']}, or deploy another with --name"
        )
    replicas = fields.get("replicas") or max(1, int(model.get("replicas") or 0))
    if replicas == model.get("replicas"):
        return model
    aside.say(f"{model['name']} goes from {model.get('replicas') or 0} to {replicas} replicas.")
    await client.update(f"{MODELS}/{model['id']}", {"replicas": replicas})
    return await model_named(client, str(model["name"]))


async def _unknown(client: AdminClient, text: str) -> NotFound:
    from gpustack.cli.lookup import MODELS

    names = [str(model.get("name")) for model in await client.all(MODELS)]
    known = f"; deployed are {', '.join(sorted(names))}" if names else ""
    return NotFound(
        f"There is no model {text!r} here{known}. To deploy one give a path (./model.gguf) or a repository of "
        "Hugging Face (ORGANISATION/REPOSITORY:TAG)"
    )


def _same_source(model: Doc, asked: Asked) -> None:
    if any(model.get(name) != value for name, value in asked.fields.items()):
        raise AlreadyExists(
            f"The name {model['name']} is taken by a model from elsewhere: choose another with --name"
        )


async def _create(client: AdminClient, document: Doc, asked: Asked, aside: Terminal) -> Doc:
    from gpustack.cli.lookup import MODELS

    if asked.remark:
        await _refuse_if_all_is_here(client, asked)
        aside.say(asked.remark)
    model = await client.create(MODELS, document)
    aside.say(f"deployed as {model['name']}")
    return model


async def _refuse_if_all_is_here(client: AdminClient, asked: Asked) -> None:
    """A path that is not on this machine is on no worker either if all of them are this machine."""
    from gpustack.cli.lookup import WORKERS

    workers = await client.all(WORKERS)
    if workers and all(is_local(str(worker.get("ip"))) for worker in workers):
        path = asked.fields["local_path"]
        raise NotFound(f"There is no {path}; a path must lead to a GGUF file or a folder of a model")


async def _wait(client: AdminClient, model: Doc, aside: Terminal, patience: int | None) -> Doc:
    import trio

    from gpustack.cli.follow import until_ready
    from gpustack.cli.progress import Progress

    progress = Progress(model=str(model["name"]), terminal=aside, now=time.monotonic)
    with trio.move_on_after(float("inf") if patience is None else patience):
        return await until_ready(client, model, progress)
    raise GatewayTimeout(f"{model['name']} was not ready within {patience} s (--timeout)")
