"""Which server a command talks to, with which key, and the conversation with it."""

from __future__ import annotations

import os
import socket
import sys
from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar
from urllib.parse import urlsplit

import attrs

from gpustack.cli.local import is_loopback
from gpustack.errors import GpustackError, Unauthorized, Unavailable
from gpustack.text import character_fault, redacted, trimmed

if TYPE_CHECKING:
    from gpustack.remote.admin_client import AdminClient

Doc = dict[str, Any]
"""A document of the API: JSON as the server answered it."""

T = TypeVar("T")

URL_FILE = "server_url"
"""In the data directory: where the server that runs on it is reached from this machine."""

_CONNECT_WITHIN = 1.0
_URL_LIMIT = 1024
_STALL = 60.0


@attrs.frozen(kw_only=True)
class ServerAddress:
    """A server and the key for it. ``own``: it was found in a data directory of this machine, not named by the user."""

    url: str
    key: str | None = attrs.field(default=None, repr=False)
    own: bool = False

    @property
    def is_loopback(self) -> bool:
        return is_loopback(self.url)


def find_server(env: Mapping[str, str], *, url: str | None = None, key: str | None = None) -> ServerAddress:
    """The server to talk to: ``url``, else GPUSTACK_SERVER_URL, else the one that answers on this machine.

    Looked for here are the server of the data directory, then the ports that ``gpustack start`` takes by default.
    Blocks for some seconds at most. Raises Unavailable when nobody answers here, Unauthorized when a key is needed.
    """
    key = _key(key or env.get("GPUSTACK_API_KEY", ""))
    given = url or trimmed(env.get("GPUSTACK_SERVER_URL", ""))
    if given:
        return _checked(ServerAddress(url=_clean(given), key=key))
    candidates = [ServerAddress(url=found, key=key, own=True) for found in _written(env)]
    candidates += [ServerAddress(url=usual, key=key) for usual in _usual()]
    for address in candidates:
        if _answers(address.url):
            return address
    tried = ", ".join(address.url for address in candidates)
    raise Unavailable(
        f"No GPUStack server answers on this machine (tried {tried}): start one with gpustack start, or set "
        "GPUSTACK_SERVER_URL to the address of another"
    )


def _checked(address: ServerAddress) -> ServerAddress:
    if not address.is_loopback and address.key is None:
        raise Unauthorized(
            f"GPUSTACK_API_KEY is not set: {address.url} is another machine, so make a key there (gpustack keys "
            "create NAME, or its console) and put it in that variable"
        )
    return address


def _key(given: str) -> str | None:
    """The API key, checked. Raises GpustackError for text that no header can carry, without repeating it."""
    key = trimmed(given)
    if sentence := character_fault(key):
        raise GpustackError(f"GPUSTACK_API_KEY (or --api-key) {sentence}")
    if not key.isascii() or " " in key:
        raise GpustackError("GPUSTACK_API_KEY (or --api-key) is no key: it holds characters that no key has")
    return key or None


def _clean(url: str) -> str:
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
        raise GpustackError(
            f"GPUSTACK_SERVER_URL must be an address such as http://10.0.0.5:8080, not {redacted(text)!r}"
        )
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
            return [_clean(file.read(_URL_LIMIT))]
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
    """Conversations with one server. Each ``run`` has its own connections and its own event loop."""

    address: ServerAddress

    def run(self, work: Callable[[AdminClient], Awaitable[T]]) -> T:
        """Run ``work`` with a client; returns or raises what it does. A single error is taken out of its group.

        Ctrl-C cancels ``work`` and raises KeyboardInterrupt.
        """
        import trio

        try:
            return trio.run(self.talk, work)
        except BaseExceptionGroup as group:
            raise self._explained(unwrap_group(group)) from None
        except Unauthorized as error:
            raise self._explained(error) from None

    def _explained(self, error: BaseException) -> BaseException:
        """``Unauthorized`` with the name of the variable to set; other errors as they are."""
        if not isinstance(error, Unauthorized):
            return error
        url = self.address.url
        if self.address.key is None:
            return Unauthorized(f"The server {url} wants a key: put one into GPUSTACK_API_KEY")
        return Unauthorized(f"The server {url} does not accept the key of GPUSTACK_API_KEY (or --api-key)")

    async def talk(self, work: Callable[[AdminClient], Awaitable[T]]) -> T:
        """Run ``work`` with a client, within an event loop that runs already."""
        from gpustack.remote.admin_client import AdminClient
        from gpustack.remote.http import Timeouts, open_client

        headers = {} if self.address.key is None else {"authorization": f"Bearer {self.address.key}"}
        # The certificate of a server on this machine seldom names loopback; its address is from our own files.
        verify = not (self.address.own and self.address.is_loopback)
        async with open_client(self.address.url, timeouts=Timeouts(stall=_STALL), verify=verify) as client:
            return await work(AdminClient(client, headers))


def open_session(env: Mapping[str, str], *, url: str | None = None, key: str | None = None) -> ServerSession:
    """A session with the server that ``find_server`` finds; raises what that does."""
    return ServerSession(find_server(env, url=url, key=key))


def unwrap_group(error: BaseException) -> BaseException:
    """The error inside groups of one, as nurseries wrap it; a group of several errors as it is."""
    while isinstance(error, BaseExceptionGroup) and len(error.exceptions) == 1:
        error = error.exceptions[0]
    return error
