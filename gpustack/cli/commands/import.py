"""Print manifests of what another product has deployed, which gpustack apply takes.

Usage:
  gpustack import [options] --from-url=URL
  gpustack import [options] --from-db=DATABASE
  gpustack import [options] --from-config=FILE

It reads only. What cannot be carried over stands in the output as comments, each with the reason, and is told on
stderr. docs/import.md has the details.

An API key of an administrator, or the password of the database, is taken from GPUSTACK_IMPORT_KEY, from --key-file, or
asked for; never from the command line, which others can read.

Options:
  --from-url=URL      A server of GPUStack 0.7 or 2.x, or of Ollama (http://host:11434).
  --from-db=DATABASE  The file database.db of GPUStack, or postgresql://user@host/name, mysql://user@host/name.
  --from-config=FILE  The configuration of llama-swap or of LiteLLM; - for stdin.
  -f, --file=FILE     Write to this file, not to stdout; only you can read it.
  --key-file=FILE     A file that has the key or the password; - for stdin.
  --replicas=N        How many replicas each model gets (default: as many as there, and none of what is started there
                      only when it is asked for).
  -h, --help          Show this help.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from gpustack.cli import output
from gpustack.cli.command_line import CommandLine, read
from gpustack.cli.terminal import stderr

if TYPE_CHECKING:
    from gpustack.cli.imported import Imported
    from gpustack.remote.http import HttpClient

KEY_VARIABLE = "GPUSTACK_IMPORT_KEY"
_LONGEST_KEY = 4096
_LARGEST_FILE = 1 << 20
_MOST_REPLICAS = 1000
_WITHIN = 900.0
"""Seconds for all answers of another installation."""
_TOLD = 20


def run(argv: Sequence[str], env: Mapping[str, str]) -> int:
    """Print the manifests, and tell what is not in them."""
    command_line = read(__doc__, "import", argv)
    replicas = command_line.whole("--replicas", most=_MOST_REPLICAS)
    found = _read(command_line, env)
    if replicas is not None:
        found.documents = [{**one, "replicas": replicas} for one in found.documents]
    file = command_line.text("--file")
    if file is None:
        print(found.as_yaml(), end="")
    else:
        output.write_file(command_line, file, found.as_yaml(), mode=0o600)
    say = stderr(env).say
    for one in found.left_out[:_TOLD]:
        say(f"not carried over: {one}")
    if len(found.left_out) > _TOLD:
        say(f"and {len(found.left_out) - _TOLD} more, which stand in the output")
    count = len(found.documents)
    say(f"{count} {'model' if count == 1 else 'models'} from {found.origin}")
    say("To check what applying them would do: gpustack apply --dry-run -f FILE")
    return 0


def _read(command_line: CommandLine, env: Mapping[str, str]) -> Imported:
    url, database = command_line.text("--from-url"), command_line.text("--from-db")
    if url is not None:
        return _from_url(command_line, url, env)
    if database is not None:
        from gpustack.cli.importers.gpustack_database import read_database

        _refuse_password(command_line, database)
        is_server = "://" in database and not database.startswith("sqlite:")
        return read_database(
            database, _secret(command_line, env, "Password of the database") if is_server else None
        )
    return _from_config(command_line, command_line.required("--from-config"), env)


def _refuse_password(command_line: CommandLine, url: str) -> None:
    from urllib.parse import urlsplit

    try:
        password = urlsplit(url).password if "://" in url else None
    except ValueError as error:
        raise command_line.error("this is no URL") from error
    if password:
        raise command_line.error(
            f"leave the password out, others can read command lines: put it into {KEY_VARIABLE} or --key-file"
        )


def _secret(command_line: CommandLine, env: Mapping[str, str], what: str) -> str | None:
    """The key or password; ``None`` where there is none. It is asked for where somebody is there to answer."""
    from getpass import getpass

    from gpustack.cli.input_file import read_input

    file = command_line.text("--key-file")
    if file is not None:
        return read_input(command_line, file, _LONGEST_KEY).decode("utf-8", "replace").strip() or None
    if given := env.get(KEY_VARIABLE, "").strip():
        return given
    return getpass(f"{what}: ").strip() or None if sys.stdin.isatty() else None


def _from_config(command_line: CommandLine, name: str, env: Mapping[str, str]) -> Imported:
    from gpustack.cli.importers.litellm import is_litellm, read_litellm
    from gpustack.cli.importers.llama_swap import is_llama_swap, read_llama_swap
    from gpustack.cli.input_file import read_input
    from gpustack.domain.yaml_lines import read_documents

    documents, faults = read_documents(read_input(command_line, name, _LARGEST_FILE))
    if faults:
        raise command_line.error("\n".join(f"{name}:{fault.line}: {fault.sentence}" for fault in faults))
    for one in documents:
        if is_llama_swap(one.value):
            return read_llama_swap(one.value, env, name)
        if is_litellm(one.value):
            return read_litellm(one.value, name)
    raise command_line.error(
        f"{name} is neither a configuration of llama-swap (models with cmd) nor of LiteLLM (model_list)"
    )


def _from_url(command_line: CommandLine, url: str, env: Mapping[str, str]) -> Imported:
    from gpustack.cli.session import clean_url, run_alone
    from gpustack.remote.http import Timeouts, open_client

    _refuse_password(command_line, url)
    address = clean_url(url, "--from-url")

    async def talk() -> Imported:
        async with open_client(address, timeouts=Timeouts(stall=30.0)) as client:
            return await _recognized(client, address, command_line, env)

    return run_alone(talk)


async def _recognized(
    client: HttpClient, url: str, command_line: CommandLine, env: Mapping[str, str]
) -> Imported:
    """What the server at ``url`` is tells which importer reads it."""
    import trio

    from gpustack.cli.imported import ImportFault
    from gpustack.cli.importers.gpustack_api import read_installation
    from gpustack.cli.importers.ollama import read_ollama

    version = await _version(client, "/api/version")
    late = ImportFault(f"{url} has not told all of it in {_WITHIN / 60:.0f} minutes")
    if version is not None:
        with trio.move_on_after(_WITHIN):
            return await read_ollama(client, url, version)
        raise late
    version = await _version(client, "/version")
    if version is None:
        raise ImportFault(
            f"{url} is neither GPUStack nor Ollama: it answers neither /version nor /api/version"
        )
    key = _secret(command_line, env, "API key of an administrator")
    with trio.move_on_after(_WITHIN):
        return await read_installation(client, url, key, version)
    raise late


async def _version(client: HttpClient, path: str) -> str | None:
    from gpustack.remote.http import BadResponse

    answer = await client.request("GET", path, limit=1 << 16, deadline=15.0)
    if answer.status != 200:
        return None
    try:
        document = answer.json()
    except BadResponse:
        return None
    version = document.get("version") if isinstance(document, dict) else None
    return version if isinstance(version, str) else None
