"""A world for every test, and the API on a real socket for those that stream."""

from __future__ import annotations

import random
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import trio
from hypercorn.config import Config
from hypercorn.trio import serve

from gpustack.api.app import create_app
from gpustack.api.context import (
    AccessControl,
    AccessRules,
    ApiContext,
    ServerDescription,
    Version,
    WorkerServices,
)
from gpustack.api.throttle import LoginLimiters
from gpustack.domain.access import User
from gpustack.identity.derived_keys import DerivedKeys
from gpustack.identity.passwords import hash_password
from gpustack.server.heartbeat import HeartbeatTimes
from gpustack.server.live_status import LiveStatus
from tests.fresh_store import open_fresh

from .world import DAEMON, PASSWORD, TOKEN, Clock, FakeLogSource, World


@pytest.fixture
async def world(tmp_path: Path) -> AsyncIterator[World]:
    clock, link = Clock(), FakeLogSource()
    store = await open_fresh(tmp_path, clock)
    async with trio.open_nursery() as nursery:
        await nursery.start(store.run)
        context = ApiContext(
            store=store,
            keys=DerivedKeys.of("a secret for tests"),
            clock=clock,
            monotonic=clock.monotonic,
            rng=random.Random(7),
            access=AccessControl(
                cluster_token=TOKEN,
                logins=LoginLimiters.of(clock.monotonic),
                rules=AccessRules(local_admins=frozenset({0, DAEMON})),
            ),
            workers=WorkerServices(
                heartbeats=HeartbeatTimes(clock.monotonic), live=LiveStatus(clock.monotonic), logs=link
            ),
            server=ServerDescription(version=Version(version="1.2.3", git_commit="abcdef0")),
        )
        hashed = await hash_password(PASSWORD)
        admin = await store.write(
            lambda tx: tx.insert(User(username="admin", is_admin=True, hashed_password=hashed))
        )
        made = World(
            store=store, context=context, app=create_app(context), clock=clock, link=link, admin=admin
        )
        await made.with_key(admin)
        yield made
        nursery.cancel_scope.cancel()


@pytest.fixture
async def address(world: World) -> AsyncIterator[tuple[str, int]]:
    """Where the API listens on loopback."""
    config = Config()
    config.bind = ["127.0.0.1:0"]
    config.loglevel = "ERROR"
    config.graceful_timeout = 0.1
    async with trio.open_nursery() as nursery:
        bound: list[str] = await nursery.start(serve, world.app, config)
        host, _, port = bound[0].removeprefix("http://").rpartition(":")
        yield host, int(port)
        nursery.cancel_scope.cancel()
