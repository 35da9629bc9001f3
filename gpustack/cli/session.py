"""A command's conversation with the server."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from typing import TYPE_CHECKING, TypeVar

import attrs

from gpustack.cli.address import ServerAddress, find_server
from gpustack.errors import Unauthorized

if TYPE_CHECKING:
    from gpustack.remote.admin_client import AdminClient

T = TypeVar("T")

_STALL = 60.0


@attrs.frozen
class ServerSession:
    """Who is talked to. Each ``run`` is a conversation of its own, in an event loop of its own."""

    address: ServerAddress

    def run(self, work: Callable[[AdminClient], Awaitable[T]]) -> T:
        """What ``work`` returns or raises, its one error taken out of the group that tasks wrap it in.

        Ctrl-C cancels it and raises KeyboardInterrupt.
        """
        import trio

        try:
            return trio.run(self.talk, work)
        except BaseExceptionGroup as group:
            raise self._explained(single(group)) from None
        except Unauthorized as error:
            raise self._explained(error) from None

    def _explained(self, error: BaseException) -> BaseException:
        """A key that is refused, with the knob to turn."""
        if not isinstance(error, Unauthorized):
            return error
        url = self.address.url
        if self.address.key is None:
            return Unauthorized(f"The server {url} wants a key: put one into GPUSTACK_API_KEY")
        return Unauthorized(f"The server {url} does not accept the key of GPUSTACK_API_KEY (or --api-key)")

    async def talk(self, work: Callable[[AdminClient], Awaitable[T]]) -> T:
        """The same within an event loop that runs already."""
        from gpustack.remote.admin_client import AdminClient
        from gpustack.remote.http import Timeouts, open_client

        headers = {} if self.address.key is None else {"authorization": f"Bearer {self.address.key}"}
        # The certificate of a server on this machine seldom names loopback; its address is from our own files.
        verify = not (self.address.own and self.address.is_loopback)
        async with open_client(self.address.url, timeouts=Timeouts(stall=_STALL), verify=verify) as client:
            return await work(AdminClient(client, headers))


def open_session(env: Mapping[str, str], *, url: str | None = None, key: str | None = None) -> ServerSession:
    """The session that this environment means; raises what ``find_server`` does."""
    return ServerSession(find_server(env, url=url, key=key))


def single(error: BaseException) -> BaseException:
    """The one error that tasks have wrapped in groups; a group of several as it is."""
    while isinstance(error, BaseExceptionGroup) and len(error.exceptions) == 1:
        error = error.exceptions[0]
    return error
