"""Programs that can be pointed at a server, each described by a file of ``clients/`` or of the user's own folder."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import attrs

from gpustack.cli.command_line import suggestion
from gpustack.cli.text_edit import FORMS, Setting
from gpustack.errors import GpustackError, NotFound
from gpustack.text import trimmed

SPEAKS = ("openai", "responses", "anthropic")
"""Which of our APIs a program calls: ``/v1/chat/completions``, ``/v1/responses`` or ``/v1/messages``."""
_OURS = Path(__file__).parent / "clients"
_LONGEST = 64 << 10
_OF_THE_USER = ("GPUSTACK_API_KEY",)
"""The program gets a key of its own: that of the user may do more."""
_PLACE = re.compile(r"\{(url|key|model|home|config)\}")
_NAME = re.compile(r"[a-z][a-z0-9-]{0,30}")


@attrs.frozen(kw_only=True)
class ClientFile:
    """A file of a program that is changed for a launch. Its texts may hold the places of ``Launch``."""

    path: str
    form: str
    value: Any
    at: Sequence[str] = ()
    listed: bool = False
    initial: Mapping[str, Any] = attrs.field(factory=dict)


@attrs.frozen(kw_only=True)
class ClientProgram:
    """How a program is pointed at a server.

    ``programs`` are its names, the first that is installed is run, with ``arguments``, then ``defaults`` unless the
    user gives arguments. ``environment`` is set (a mapping as JSON), ``unset`` taken away for it alone; ``files`` are
    changed and brought back. ``stays``: it is done when it ends; otherwise it goes on by itself, such as an editor, and
    its files stay changed until they are restored. ``prompt_tokens``: about as many it sends before a person's first
    word, ``None`` where that is not known.
    """

    name: str
    title: str
    programs: Sequence[str]
    install: str
    speaks: str = "openai"
    page: str = ""
    arguments: Sequence[str] = ()
    defaults: Sequence[str] = ()
    environment: Mapping[str, Any] = attrs.field(factory=dict)
    unset: Sequence[str] = ()
    files: Sequence[ClientFile] = ()
    stays: bool = True
    prompt_tokens: int | None = None

    def found(self, env: Mapping[str, str]) -> str | None:
        """Where the program is; ``None`` if it is not installed."""
        return next((at for name in self.programs if (at := shutil.which(name, path=env.get("PATH")))), None)


_FIELDS = set(attrs.fields_dict(ClientProgram)) - {"name"}
_FILE_FIELDS = set(attrs.fields_dict(ClientFile))


@attrs.frozen(kw_only=True)
class Launch:
    """What the places of a description stand for: ``{url}`` of the server without ``/v1``, ``{key}``, ``{model}``, and
    the user's ``{home}`` and ``{config}`` folder."""

    url: str
    key: str = attrs.field(repr=False)
    model: str
    home: str
    config: str

    def filled(self, value: Any) -> Any:
        """A value of a description with its places filled, in mappings and lists too, names included."""
        if isinstance(value, str):
            return _PLACE.sub(lambda found: str(getattr(self, found[1])), value)
        if isinstance(value, Mapping):
            return {self.filled(name): self.filled(one) for name, one in value.items()}
        return [self.filled(one) for one in value] if isinstance(value, list | tuple) else value

    def environment(self, client: ClientProgram, env: Mapping[str, str]) -> dict[str, str]:
        """The environment of the program."""
        kept = {name: value for name, value in env.items() if name not in (*client.unset, *_OF_THE_USER)}
        filled = self.filled(client.environment)
        return {
            **kept,
            **{name: one if isinstance(one, str) else json.dumps(one) for name, one in filled.items()},
        }

    def settings(self, client: ClientProgram) -> list[tuple[Path, Setting]]:
        """Which files get what."""
        return [
            (
                Path(self.filled(file.path)),
                Setting(
                    form=file.form,
                    at=self.filled(list(file.at)),
                    value=self.filled(file.value),
                    listed=file.listed,
                    initial=file.initial,
                ),
            )
            for file in client.files
        ]


def home_of(env: Mapping[str, str]) -> str:
    """The user's home folder; raises GpustackError."""
    home = trimmed(env.get("HOME", ""))
    if not home:
        raise GpustackError("HOME is not set: programs keep their settings there")
    return home


def config_of(env: Mapping[str, str]) -> str:
    """Where the user's programs keep their settings."""
    return trimmed(env.get("XDG_CONFIG_HOME", "")) or f"{home_of(env)}/.config"


def clients(env: Mapping[str, str]) -> dict[str, ClientProgram]:
    """All descriptions by name; one of the user's own (``gpustack/clients/`` among their settings) goes before ours.
    Raises GpustackError with what is wrong with one."""
    folders = [_OURS]
    if env.get("HOME") or env.get("XDG_CONFIG_HOME"):
        folders.append(Path(config_of(env)) / "gpustack" / "clients")
    found = [read_client(path) for folder in folders for path in sorted(folder.glob("*.yaml"))]
    return dict(sorted({one.name: one for one in found}.items()))


def client_named(name: str, env: Mapping[str, str]) -> ClientProgram:
    """Raises NotFound."""
    known = clients(env)
    if name not in known:
        raise NotFound(
            f"There is no client {name!r}; {suggestion(name, known, 'gpustack launch lists them')}"
        )
    return known[name]


def read_client(path: Path) -> ClientProgram:
    """The description in a file, which bears the name of the client. Raises GpustackError."""
    from gpustack.domain.document import read_yaml
    from gpustack.errors import Invalid

    try:
        with path.open("rb") as file:
            document = read_yaml(file.read(_LONGEST))
    except OSError as error:
        raise GpustackError(f"{path} cannot be read: {error.strerror}") from error
    except Invalid as error:
        raise GpustackError(f"{path}: {error}") from error
    if faults := [*_faults(path.stem, document)]:
        raise GpustackError(f"{path}: {'; '.join(faults)}")
    files = [ClientFile(**file) for file in document.pop("files", [])]
    return ClientProgram(name=path.stem, files=files, **document)


def _faults(name: str, document: Any) -> list[str]:
    if not isinstance(document, dict):
        return ["it is no mapping"]
    faults = [] if _NAME.fullmatch(name) else [f"the name of the file must be a name, not {name!r}"]
    faults += [f"there is no field {key!r}" for key in document if key not in _FIELDS]
    faults += [
        f"{key} must be text" for key in ("title", "install") if not isinstance(document.get(key), str)
    ]
    lists = {key: document.get(key, []) for key in ("programs", "arguments", "defaults", "unset")}
    faults += [f"{key} must be a list of texts" for key, value in lists.items() if not _is_texts(value)]
    faults += [] if document.get("programs") else ["programs must name one at least"]
    if document.get("speaks", SPEAKS[0]) not in SPEAKS:
        faults.append(f"speaks must be one of {', '.join(SPEAKS)}")
    prompt = document.get("prompt_tokens")
    if prompt is not None and (not isinstance(prompt, int) or isinstance(prompt, bool) or prompt < 1):
        faults.append("prompt_tokens must be a whole number, 1 at least")
    environment = document.get("environment", {})
    if not isinstance(environment, dict) or not all(
        isinstance(one, str | dict) for one in environment.values()
    ):
        faults.append("environment must have a text for each name, or a mapping that is given as JSON")
    if any(
        "{key}" in text for key in ("arguments", "defaults") if _is_texts(lists[key]) for text in lists[key]
    ):
        faults.append("{key} must not be in arguments, which everybody on the machine sees")
    files = document.get("files", [])
    if not isinstance(files, list):
        return [*faults, "files must be a list"]
    return faults + [fault for file in files for fault in _file_faults(file)]


def _file_faults(file: Any) -> list[str]:
    if not isinstance(file, dict) or not {"path", "form", "value"} <= file.keys() <= _FILE_FIELDS:
        return [f"each of files has path, form and value, and may have {', '.join(sorted(_FILE_FIELDS))}"]
    faults = [] if file["form"] in FORMS else [f"form must be one of {', '.join(FORMS)}"]
    if not str(file["path"]).startswith(("{home}/", "{config}/")):
        faults.append("path must begin with {home}/ or {config}/")
    return faults + ([] if _is_texts(file.get("at", [])) else ["at must be a list of texts"])


def _is_texts(value: Any) -> bool:
    return isinstance(value, list) and all(isinstance(one, str) for one in value)
