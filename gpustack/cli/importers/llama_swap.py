"""Reads the YAML of llama-swap: a command becomes a model of llama.cpp or vLLM, or a custom one."""

from __future__ import annotations

import re
import shlex
from collections.abc import Mapping
from pathlib import PurePosixPath
from typing import Any

import attrs

from gpustack.api.mask import holds_secret
from gpustack.cli.imported import Doc, Imported
from gpustack.cli.repository import DEFAULT_TAG, pattern_for
from gpustack.engines.parameters import is_flag

_MACRO = re.compile(r"\$\{([A-Za-z0-9_.-]{1,80})\}")
_LONGEST = 32_768
_MOST_ROUNDS = 20
_ENDLESS = "its macros have no end"
_ON_DEMAND = (
    "replicas: 0, since llama-swap starts a model when it is asked for: gpustack scale starts it here"
)

_ELSEWHERE: Mapping[str, str] = {
    "apiKeys": "make keys anew with gpustack keys",
    "groups": "which models run together is decided by the memory that is free",
    "matrix": "which models run together is decided by the memory that is free",
    "routing": "which models run together is decided by the memory that is free",
    "profiles": "a model has one name here",
    "selectors": "a model has one name here",
    "peers": "models of other servers are not routed here",
    "tailcat": "the server listens on its own port",
    "globalTTL": "a model runs until it is scaled down",
}
"""Keys of the whole file that say something, and why it is not carried over."""
_OF_A_MODEL: Mapping[str, str] = {
    "ttl": "a model runs until it is scaled down",
    "filters": "requests reach the engine as clients send them",
    "useModelName": "the engine is told the deployment's name",
    "cmdStop": "an engine is ended by signals",
    "metadata": "not kept here",
    "unlisted": "who may use a model sees it",
    "timeouts": "a request may take as long as its model thinks",
    "capabilities": "what a model can do is read from its file",
}
_LLAMA_MODEL = ("-m", "--model")
_HF_REPO = ("-hf", "-hfr", "--hf-repo")
_HF_FILE = ("-hff", "--hf-file")
_DROPPED = frozenset(
    {"--host", "--port", "-a", "--alias", "--api-key", "--api-key-file", "--served-model-name"}
)
"""Options that the worker sets itself."""
_VLLM_MODEL = ("--model",)
_CONTAINERS = frozenset({"docker", "podman", "nerdctl"})
_DEVICES = frozenset(
    {"CUDA_VISIBLE_DEVICES", "HIP_VISIBLE_DEVICES", "ROCR_VISIBLE_DEVICES", "GGML_VK_VISIBLE_DEVICES"}
)


class _Unreadable(Exception):
    """Why a model cannot be carried over."""


def is_llama_swap(document: Any) -> bool:
    """Whether a document looks like its configuration."""
    models = document.get("models") if isinstance(document, dict) else None
    return isinstance(models, dict) and any(isinstance(one, dict) and "cmd" in one for one in models.values())


def read_llama_swap(document: Mapping[str, Any], env: Mapping[str, str], place: str) -> Imported:
    """Its models; ``env`` is what ``${env.NAME}`` refers to."""
    made = Imported(f"llama-swap's {place}")
    for key, why in _ELSEWHERE.items():
        if document.get(key):
            made.leave(key, why)
    preloaded = _preloaded(document)
    for name, given in document["models"].items():
        if not isinstance(given, dict) or not isinstance(given.get("cmd"), str):
            made.leave(f"Model/{name}", "it has no cmd that is text")
            continue
        try:
            _add(made, str(name), given, _macros(document, given), env, running=name in preloaded)
        except _Unreadable as error:
            made.leave(f"Model/{name}", str(error))
    return made


def _preloaded(document: Mapping[str, Any]) -> set[str]:
    hooks = document.get("hooks")
    started = hooks.get("on_startup") if isinstance(hooks, dict) else None
    names = started.get("preload") if isinstance(started, dict) else None
    return {str(name) for name in names} if isinstance(names, list) else set()


def _macros(document: Mapping[str, Any], model: Mapping[str, Any]) -> dict[str, str]:
    found: dict[str, str] = {}
    for holder in (document, model):
        macros = holder.get("macros")
        for name, value in macros.items() if isinstance(macros, dict) else ():
            found[str(name)] = str(value).lower() if isinstance(value, bool) else str(value)
    return found


@attrs.frozen
class _Expansion:
    """Fills macros in. ``{port}`` stands for the port that a worker chooses."""

    macros: Mapping[str, str]
    env: Mapping[str, str]
    name: str

    def text(self, text: str) -> str:
        """Raises _Unreadable for a macro without value, or macros without end."""
        for _ in range(_MOST_ROUNDS):
            if _MACRO.search(text) is None:
                return text
            text = self._filled(text)
        raise _Unreadable(_ENDLESS)

    def _filled(self, text: str) -> str:
        """With each macro replaced once. Raises _Unreadable before more is made than a command may have."""
        parts, size, at = list[str](), 0, 0
        for found in _MACRO.finditer(text):
            parts.append(text[at : found.start()] + self._value(found))
            size += len(parts[-1])
            if size > _LONGEST:
                raise _Unreadable(_ENDLESS)
            at = found.end()
        return "".join([*parts, text[at:]])

    def _value(self, found: re.Match[str]) -> str:
        macro = found[1]
        if macro == "PORT":
            return "{port}"
        if macro == "MODEL_ID":
            return self.name
        if macro.startswith("env."):
            variable = macro.removeprefix("env.")
            if variable not in self.env or holds_secret(self.env[variable], variable):
                raise _Unreadable(
                    f"its command takes {variable} from the environment, which has no such value here"
                )
            return self.env[variable]
        if macro not in self.macros:
            raise _Unreadable(f"its command has the macro {macro}, which has no value")
        return self.macros[macro]


def _add(
    made: Imported,
    name: str,
    given: Doc,
    macros: Mapping[str, str],
    env: Mapping[str, str],
    *,
    running: bool,
) -> None:
    expansion = _Expansion(macros, env, name)
    words = _words(expansion.text(given["cmd"]))
    remarks = [] if running else [_ON_DEMAND]
    for key, why in _OF_A_MODEL.items():
        if given.get(key) not in (None, 0, -1, False, "", {}, []):
            remarks.append(f"{key}: not carried over: {why}")
    for alias in given.get("aliases") or () if isinstance(given.get("aliases"), list) else ():
        made.leave(
            f"alias {alias} of {name}", "a model has one name here: deploy it once more under that name"
        )
    document: Doc = {
        "name": name,
        "description": given.get("description") or given.get("name") or None,
        "replicas": int(running),
        "env": _environment(given.get("env"), expansion, remarks),
        **_engine(words, given, remarks),
    }
    limit = given.get("concurrencyLimit")
    if isinstance(limit, int) and not isinstance(limit, bool) and limit > 0:
        document["limits"] = {"concurrent_requests": limit}
    made.add_model(document, remarks)


def _words(command: str) -> list[str]:
    """The words of a command without its comments. Raises _Unreadable."""
    lines = [line for line in command.splitlines() if not line.lstrip().startswith("#")]
    text = " ".join(line.rstrip().removesuffix("\\") for line in lines)
    try:
        words = shlex.split(text)
    except ValueError as error:
        raise _Unreadable(f"its command cannot be split into words: {error}") from error
    if not words:
        raise _Unreadable("its command is empty")
    if re.match(r"[A-Za-z]:\\", text.lstrip(" '\"")):
        raise _Unreadable("its command is one of Windows: a worker runs Linux or macOS")
    return words


def _environment(given: Any, expansion: _Expansion, remarks: list[str]) -> dict[str, str]:
    found: dict[str, str] = {}
    for line in given if isinstance(given, list) else ():
        name, _, value = expansion.text(str(line)).partition("=")
        if name in _DEVICES:
            remarks.append(f"env: {name} left out: the scheduler chooses the GPUs")
        else:
            found[name] = value
    return found


def _engine(words: list[str], given: Doc, remarks: list[str]) -> Doc:
    program = PurePosixPath(words[0].replace("\\", "/")).name.lower()
    if program.startswith("llama-server"):
        options, source = _options(words[1:]), {}
        path = _last(options, _LLAMA_MODEL)
        repo, file = _last(options, _HF_REPO), _last(options, _HF_FILE)
        if path is not None:
            source = _local(path, remarks)
        elif repo is not None:
            repo, _, quant = repo.partition(":")
            pattern = file or pattern_for(quant or DEFAULT_TAG)
            source = {"source": "huggingface", "huggingface_repo_id": repo, "huggingface_filename": pattern}
        if source:
            left = {*_LLAMA_MODEL, *_HF_REPO, *_HF_FILE, *_DROPPED}
            return {**source, "backend": "llama-box", "backend_parameters": _parameters(options, left)}
        raise _Unreadable("its command names no model, by -m or -hf")
    if (options_of_vllm := _of_vllm(program, words)) is not None:
        options = _options(options_of_vllm)
        model = _last(options, _VLLM_MODEL)
        if model is None:
            raise _Unreadable("its command names no model")
        source = (
            _local(model, remarks)
            if model.startswith("/")
            else {"source": "huggingface", "huggingface_repo_id": model}
        )
        left = {*_VLLM_MODEL, *_DROPPED}
        return {**source, "backend": "vllm", "backend_parameters": _parameters(options, left)}
    if program in _CONTAINERS:
        remarks.append("it starts a container: what that takes of GPUs is seen here only as used by others")
    return _custom(words, given, remarks)


def _of_vllm(program: str, words: list[str]) -> list[str] | None:
    """The options of vLLM's server, the model among them; ``None`` for another program."""
    if program == "vllm" and words[1:2] == ["serve"]:
        named = len(words) > 2 and not is_flag(words[2])
        return ["--model", *words[2:]] if named else words[2:]
    started = program.startswith("python") and words[1:3] == ["-m", "vllm.entrypoints.openai.api_server"]
    return words[3:] if started else None


def _custom(words: list[str], given: Doc, remarks: list[str]) -> Doc:
    """Any other program: the same command, with the port that the worker chooses."""
    if not any("{port}" in word for word in words):
        raise _Unreadable("its command does not take ${PORT}: a worker chooses the port of a program")
    path = next((word for word in words[1:] if word.startswith("/")), None) or (
        words[0] if words[0].startswith("/") else f"/{words[0]}"
    )
    remarks.append("a command of its own: the program must be on the workers")
    check = given.get("checkEndpoint")
    made = {
        "source": "local_path",
        "local_path": path,
        "backend": "custom",
        "command": shlex.join(words).replace("'{port}'", "{port}"),
    }
    if isinstance(check, str) and check.startswith("/"):
        made["health_path"] = check
    elif check is None:
        made["health_path"] = "/health"
    return made


def _local(path: str, remarks: list[str]) -> Doc:
    if not PurePosixPath(path).is_absolute() and not re.match(r"[A-Za-z]:[\\/]", path):
        raise _Unreadable(f"the path {path} of its file is relative: write it as an absolute one")
    remarks.append("its file must be on the workers, at this path")
    return {"source": "local_path", "local_path": path}


Options = list[tuple[str, str | None]]


def _options(words: list[str]) -> Options:
    found: Options = []
    for word in words:
        flag, equals, value = word.partition("=")
        if is_flag(flag) and (equals or is_flag(word)):
            found.append((flag, value if equals else None))
        elif found and found[-1][1] is None:
            found[-1] = (found[-1][0], word)
        else:
            raise _Unreadable(f"its command has {word}, which follows no option")
    return found


def _last(options: Options, names: tuple[str, ...]) -> str | None:
    return next((value for flag, value in reversed(options) if flag in names and value), None)


def _parameters(options: Options, without: frozenset[str] | set[str]) -> list[str]:
    return [flag if value is None else f"{flag}={value}" for flag, value in options if flag not in without]
