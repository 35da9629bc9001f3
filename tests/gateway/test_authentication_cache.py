"""A key is looked at once a second; everything else each time."""

from __future__ import annotations

from typing import Any, cast

import attrs
import pytest
import trio
import trio.testing

from gpustack.domain.access import AuthMethod, Principal, Role
from gpustack.domain.snapshot import Snapshot
from gpustack.errors import Unauthorized
from gpustack.gateway.authentication_cache import AuthenticationCache
from gpustack.http1.exchange import Exchange
from gpustack.http1.head import RequestHead, parse_request_head


@attrs.frozen
class Asked:
    """The part of an exchange that says who asks."""

    head: RequestHead


def asked(key: bytes | None) -> Exchange:
    line = b"" if key is None else b"authorization: %b\r\n" % key
    return cast(
        Exchange, Asked(cast(RequestHead, parse_request_head(b"GET / HTTP/1.1\r\nhost: x\r\n%b\r\n" % line)))
    )


@attrs.define
class Accounts:
    means: AuthMethod = AuthMethod.KEY
    calls: int = 0
    refuses: bool = False
    snapshot: Snapshot = attrs.field(factory=lambda: Snapshot(tables={"users": {}, "api_keys": {}}))
    cache: Any = attrs.field(
        default=attrs.Factory(
            lambda self: AuthenticationCache(self.look, lambda: self.snapshot), takes_self=True
        )
    )

    async def look(self, exchange: Exchange) -> Principal:
        await trio.lowlevel.checkpoint()
        self.calls += 1
        if self.refuses:
            raise Unauthorized
        return Principal(role=Role.USER, means=self.means, user_id=self.calls)


async def test_a_key_is_looked_at_once_a_second(mock_clock: trio.testing.MockClock) -> None:
    accounts = Accounts()
    first = await accounts.cache(asked(b"Bearer one"))
    assert await accounts.cache(asked(b"Bearer one")) is first
    assert await accounts.cache(asked(b"Bearer two")) is not first
    assert accounts.calls == 2
    assert repr(accounts.cache) == "<AuthenticationCache: 2 keys known>"
    mock_clock.jump(1.1)
    await accounts.cache(asked(b"Bearer one"))
    assert accounts.calls == 3


@pytest.mark.attack("access")
@pytest.mark.parametrize("table", ["users", "api_keys"])
async def test_a_change_of_people_or_keys_is_heeded_at_once(table: str) -> None:
    accounts = Accounts()
    await accounts.cache(asked(b"Bearer one"))
    accounts.refuses = True
    accounts.snapshot = attrs.evolve(accounts.snapshot, tables={**accounts.snapshot.tables, "workers": {}})
    await accounts.cache(asked(b"Bearer one"))
    accounts.snapshot = attrs.evolve(accounts.snapshot, tables={**accounts.snapshot.tables, table: {}})
    with pytest.raises(Unauthorized):
        await accounts.cache(asked(b"Bearer one"))
    assert repr(accounts.cache) == "<AuthenticationCache: 0 keys known>"


@pytest.mark.parametrize("means", [means for means in AuthMethod if means is not AuthMethod.KEY])
async def test_nothing_else_is_remembered(means: AuthMethod) -> None:
    accounts = Accounts(means)
    for _ in range(3):
        await accounts.cache(asked(b"Basic eDp5"))
        await accounts.cache(asked(None))
    assert accounts.calls == 6


async def test_a_refusal_is_not_remembered() -> None:
    accounts = Accounts(refuses=True)
    for _ in range(2):
        with pytest.raises(Unauthorized):
            await accounts.cache(asked(b"Bearer one"))
    assert accounts.calls == 2


@pytest.mark.attack("flood")
async def test_memory_is_bounded() -> None:
    accounts = Accounts()
    for number in range(3000):
        await accounts.cache(asked(b"Bearer %d" % number))
    assert int(repr(accounts.cache).split()[1]) <= 1024
