"""Which server a command talks to, with which key, and the conversation with it."""

from __future__ import annotations

import io
import os
import socket
import sys
from collections.abc import Awaitable, Callable, Mapping
from contextlib import nullcontext, redirect_stdout
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar
from urllib.parse import urlsplit

import attrs

from gpustack.cli.failure import DryRunEnd
from gpustack.cli.local import is_loopback
from gpustack.cli.server_context import ServerContext, load_contexts
from gpustack.errors import GpustackError, Unauthorized, Unavailable
from gpustack.text import character_fault, redacted, trimmed

if TYPE_CHECKING:
    from gpustack.remote.admin_client import AdminClient

Doc = dict[str, Any]
"""A document of the API: JSON as the server answered it."""

T = TypeVar("T")

URL_FILE = "server_url"
"""In the data directory: where the server that runs on it is reached from this machine."""

DRY_RUN_VARIABLE = "GPUSTACK_DRY_RUN"
"""Set for a command that is to change nothing: to the form in which that is told."""

_KEY_VARIABLE = "GPUSTACK_API_KEY (or --api-key)"
_CONTEXT = "context "
_CONNECT_WITHIN = 1.0
_URL_LIMIT = 1024
_STALL = 60.0


@attrs.frozen(kw_only=True)
class ServerAddress:
    """A server and the key for it.

    ``own``: it was found in a data directory of this machine, not named by the user. ``origin`` says what named it
    (such as ``context prod``), and ``key_origin`` what the key came from; both are for messages.
    """

    url: str
    key: str | None = attrs.field(default=None, repr=False)
    own: bool = False
    origin: str = ""
    key_origin: str = _KEY_VARIABLE

    @property
    def is_loopback(self) -> bool:
        return is_loopback(self.url)

    @property
    def must_verify(self) -> bool:
        """Whether its certificate must be good: that of a server on this machine seldom names loopback, and its address
        is from our own files."""
        return not (self.own and self.is_loopback)


def find_server(env: Mapping[str, str], *, url: str | None = None, key: str | None = None) -> ServerAddress:
    """The server to talk to: ``url``, else GPUSTACK_SERVER_URL, else the context of GPUSTACK_CONTEXT or the one in
    use, else the one that answers on this machine.

    Looked for here are the server of the data directory, then the ports that ``gpustack start`` takes by default.
    Blocks for some seconds at most. Raises Unavailable when nobody answers here, Unauthorized when a key is needed,
    NotFound for a context that there is not.
    """
    key = _key(key or env.get("GPUSTACK_API_KEY", ""))
    variable = trimmed(env.get("GPUSTACK_SERVER_URL", ""))
    if given := url or variable:
        origin = "--server-url" if url else "GPUSTACK_SERVER_URL"
        return _checked(ServerAddress(url=clean_url(given), key=key, origin=origin))
    if (context := load_contexts(env).chosen(env)) is not None:
        return _of_context(context, key)
    candidates = [ServerAddress(url=found, key=key, own=True) for found in _written(env)]
    candidates += [ServerAddress(url=usual, key=key) for usual in _usual()]
    for address in candidates:
        if _answers(address.url):
            return address
    tried = ", ".join(dict.fromkeys(address.url for address in candidates))
    raise Unavailable(
        f"No GPUStack server answers on this machine (tried {tried}): start one with gpustack start, or set "
        "GPUSTACK_SERVER_URL to the address of another"
    )


def _of_context(context: ServerContext, key: str | None) -> ServerAddress:
    """``key`` is that of the environment, which goes before the one of the context."""
    named = f"context {context.name}"
    key_origin = named if key is None else _KEY_VARIABLE
    return ServerAddress(
        url=clean_url(context.url), key=key or _key(context.key or ""), origin=named, key_origin=key_origin
    )


def _checked(address: ServerAddress) -> ServerAddress:
    if not address.is_loopback and address.key is None:
        raise Unauthorized(
            f"GPUSTACK_API_KEY is not set: {address.url} is another machine, so make a key there (gpustack keys "
            "create NAME, or its console) and put it in that variable, or keep both with gpustack context add"
        )
    return address


def _key(given: str) -> str | None:
    return checked_key(given, "GPUSTACK_API_KEY (or --api-key)")


def checked_key(given: str, what: str) -> str | None:
    """The API key, checked; ``None`` for an empty text. Raises GpustackError for text that no header can carry,
    without repeating it; ``what`` says what it was read from."""
    key = trimmed(given)
    if sentence := character_fault(key):
        raise GpustackError(f"{what} {sentence}")
    if not key.isascii() or " " in key:
        raise GpustackError(f"{what} is no key: it holds characters that no key has")
    return key or None


def clean_url(url: str, what: str = "GPUSTACK_SERVER_URL") -> str:
    """The address of a server as it is used, checked; raises GpustackError that names ``what`` it was written in,
    without the password in it."""
    text = trimmed(url)
    if "://" not in text:
        text = f"http://{text}"
    try:
        parts = urlsplit(text)
        good = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
        good = good and character_fault(text) is None
    except ValueError:
        good = False
    if not good:
        raise GpustackError(f"{what} must be an address such as http://10.0.0.5:8080, not {redacted(text)!r}")
    return text.rstrip("/")


def data_dir(env: Mapping[str, str]) -> Path:
    """The data directory that ``gpustack start`` would use in this environment, if no option names another."""
    if given := trimmed(env.get("GPUSTACK_DATA_DIR", "")):
        return Path(given).expanduser()
    from gpustack.config.machine_default import HostContext, default_data_dir

    return default_data_dir(HostContext(platform=sys.platform, env=env, cwd=Path.cwd(), euid=_euid()))


def _written(env: Mapping[str, str]) -> list[str]:
    try:
        with (data_dir(env) / URL_FILE).open(encoding="utf-8") as file:
            return [clean_url(file.read(_URL_LIMIT))]
    except (OSError, UnicodeDecodeError, GpustackError):
        return []


def _usual() -> list[str]:
    return ["http://127.0.0.1", *([] if _euid() in (0, None) else ["http://127.0.0.1:8080"])]


def _euid() -> int | None:
    return os.geteuid() if hasattr(os, "geteuid") else None


def _answers(url: str) -> bool:
    parts = urlsplit(url)
    port = parts.port or (443 if parts.scheme == "https" else 80)
    try:
        with socket.create_connection((parts.hostname, port), timeout=_CONNECT_WITHIN):
            return True
    except OSError:
        return False


@attrs.frozen
class ServerSession:
    """Conversations with one server. Each ``run`` has its own connections and its own event loop. In a dry run
    (``is_dry``) nothing is changed by it."""

    address: ServerAddress
    is_dry: bool = False

    def run(self, work: Callable[[AdminClient], Awaitable[T]]) -> T:
        """Run ``work`` with a client; returns or raises what it does. A single error is taken out of its group.

        Ctrl-C cancels ``work`` and raises KeyboardInterrupt. Raises DryRunEnd in a dry run that has come upon a change.
        """
        noted: list[Doc] = []
        said = io.StringIO()
        try:
            # What a change says when it is made must not be said when it is left out.
            with redirect_stdout(said) if self.is_dry else nullcontext():
                result: T = run_alone(self.talk, work, noted)
        except GpustackError as error:
            explained = self._explained(error)
            if explained is error:
                raise
            raise explained from None
        if noted:
            raise DryRunEnd(noted)
        print(said.getvalue(), end="")
        return result

    def _explained(self, error: GpustackError) -> GpustackError:
        """``Unauthorized`` with the name of what to set, and every error of a server that a context named with the
        name of that; others as they are."""
        address = self.address
        if not isinstance(error, Unauthorized):
            if address.origin.startswith(_CONTEXT):
                error.args = (f"{error} [{address.origin}]", *error.args[1:])
            return error
        of = f" (of {address.origin})" if address.origin else ""
        if address.key is None:
            knob = "put one into GPUSTACK_API_KEY"
            if address.origin.startswith(_CONTEXT):
                knob = "add the context again with one, or put one into GPUSTACK_API_KEY"
            return Unauthorized(f"The server {address.url}{of} wants a key: {knob}")
        return Unauthorized(f"The server {address.url}{of} does not accept the key of {address.key_origin}")

    async def talk(self, work: Callable[[AdminClient], Awaitable[T]], noted: list[Doc] | None = None) -> T:
        """Run ``work`` with a client, within an event loop that runs already. In a dry run the changes that are left
        out go to ``noted``."""
        from gpustack.remote.admin_client import AdminClient
        from gpustack.remote.http import Timeouts, open_client

        headers = {} if self.address.key is None else {"authorization": f"Bearer {self.address.key}"}
        timeouts, verify = Timeouts(stall=_STALL), self.address.must_verify
        async with open_client(self.address.url, timeouts=timeouts, verify=verify) as client:
            if self.is_dry:
                from gpustack.cli.dry_run import RehearsingClient

                return await work(RehearsingClient(client, headers, [] if noted is None else noted))
            return await work(AdminClient(client, headers))


def open_session(env: Mapping[str, str], *, url: str | None = None, key: str | None = None) -> ServerSession:
    """A session with the server that ``find_server`` finds; raises what that does."""
    return ServerSession(find_server(env, url=url, key=key), is_dry=bool(env.get(DRY_RUN_VARIABLE)))


def run_alone(work: Callable[..., Awaitable[T]], *args: Any) -> T:
    """Run ``work(*args)`` in an event loop of its own; returns or raises what it does. A single error is taken out of
    the groups that nurseries wrap it in; a group of several errors stays."""
    import trio

    try:
        result: T = trio.run(work, *args)
    except BaseExceptionGroup as group:
        error: BaseException = group
        while isinstance(error, BaseExceptionGroup) and len(error.exceptions) == 1:
            error = error.exceptions[0]
        raise error from None
    return result
