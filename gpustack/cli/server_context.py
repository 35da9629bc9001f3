"""The servers that a user has named, with their keys, in a file that nobody else can read."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import attrs

from gpustack.cli.command_line import suggestion
from gpustack.errors import GpustackError, NotFound
from gpustack.text import redacted, trimmed

VARIABLE = "GPUSTACK_CONTEXT"
LOCAL = "local"
"""The context that is always there: the server of this machine."""

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,62}")
_LONGEST = 1 << 20
_OTHERS = 0o077


@attrs.frozen(kw_only=True)
class ServerContext:
    """A server under a name of the user's. ``key`` is ``None`` where the server wants none."""

    name: str
    url: str = attrs.field(repr=redacted)
    key: str | None = attrs.field(default=None, repr=False)


@attrs.frozen
class ContextRegistry:
    """The contexts in the order of their names, and which is used where nothing else is said."""

    contexts: Mapping[str, ServerContext] = attrs.field(factory=dict)
    current: str = LOCAL

    def named(self, name: str) -> ServerContext | None:
        """The context; ``None`` for the one of this machine. Raises NotFound."""
        if name == LOCAL:
            return None
        if name not in self.contexts:
            guess = suggestion(name, [LOCAL, *self.contexts], "gpustack context lists them")
            raise NotFound(f"There is no context {name!r}; {guess}")
        return self.contexts[name]

    def chosen(self, env: Mapping[str, str]) -> ServerContext | None:
        """The context of GPUSTACK_CONTEXT, else the current one; ``None`` for this machine. Raises NotFound."""
        return self.named(trimmed(env.get(VARIABLE, "")) or self.current)


def contexts_file(env: Mapping[str, str]) -> Path | None:
    """Where they are kept; ``None`` for somebody without a home."""
    config, home = trimmed(env.get("XDG_CONFIG_HOME", "")), trimmed(env.get("HOME", ""))
    if not config and not home:
        return None
    return (Path(config) if config else Path(home) / ".config") / "gpustack" / "contexts.json"


def load_contexts(env: Mapping[str, str]) -> ContextRegistry:
    """The contexts of this user. Raises GpustackError for a file that others can read, or that is damaged."""
    path = contexts_file(env)
    if path is None:
        return ContextRegistry()
    try:
        with path.open("rb") as file:
            mode = os.fstat(file.fileno()).st_mode
            content = file.read(_LONGEST + 1)
    except (FileNotFoundError, NotADirectoryError):
        return ContextRegistry()
    except OSError as error:
        raise GpustackError(f"{path} cannot be read: {error.strerror}") from error
    if mode & _OTHERS:
        raise GpustackError(
            f"{path} has keys in it and is open to others: take that away with chmod 600 {path}"
        )
    try:
        return _registry(json.loads(content))
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        raise GpustackError(
            f"{path} is damaged: mend it, or remove it and name the servers again with gpustack context add"
        ) from None


def _registry(document: Any) -> ContextRegistry:
    found = [
        ServerContext(
            name=str(name), url=_text(one["url"]), key=_text(one["key"]) if one.get("key") else None
        )
        for name, one in sorted(document["contexts"].items())
    ]
    return ContextRegistry({one.name: one for one in found}, _text(document.get("current", LOCAL)))


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise TypeError
    return value


def checked_name(name: str) -> str:
    """A name that a context may have; raises GpustackError."""
    if name == LOCAL:
        raise GpustackError(f"{LOCAL} is the server of this machine, always: choose another name")
    if not _NAME.fullmatch(name):
        raise GpustackError(f"The name of a context has letters, digits, '.', '_' and '-' only, not {name!r}")
    return name


@contextmanager
def changing(env: Mapping[str, str]) -> Iterator[list[ContextRegistry]]:
    """Yield a list with the contexts of now; the one that the block puts last into it is kept. Nobody else changes
    them meanwhile. Raises GpustackError."""
    from gpustack import durable_file
    from gpustack.store.lock import FileLock

    path = contexts_file(env)
    if path is None:
        raise GpustackError("There is no home to keep contexts in: set HOME or XDG_CONFIG_HOME")
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as error:
        raise GpustackError(f"{path.parent} cannot be made: {error.strerror}") from error
    lock = FileLock(path.with_name(f".{path.name}.lock"))
    lock.acquire()
    try:
        versions = [load_contexts(env)]
        yield versions
        durable_file.write(path, _document(versions[-1]), mode=0o600)
    except OSError as error:
        raise GpustackError(f"{path} cannot be written: {error.strerror}") from error
    finally:
        lock.release()


def _document(registry: ContextRegistry) -> str:
    contexts = {
        one.name: {"url": one.url, **({} if one.key is None else {"key": one.key})}
        for one in registry.contexts.values()
    }
    return json.dumps({"current": registry.current, "contexts": contexts}, indent=2) + "\n"
