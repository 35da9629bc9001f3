"""There is an administrator after the first start, made once."""

from __future__ import annotations

from pathlib import Path

import pytest
import trio

from gpustack.domain.access import User
from gpustack.errors import Invalid
from gpustack.identity.passwords import verify_password
from gpustack.server.account import ensure_admin

from .cluster import Cluster


def never() -> str:
    raise AssertionError("no password is made")


async def admin(cluster: Cluster) -> User:
    (found,) = cluster.snapshot.users.values()
    return found


async def test_the_first_password_is_made_and_must_be_changed(cluster: Cluster) -> None:
    await ensure_admin(cluster.store, given=None, made=lambda: "Made_1_up", kept_in=Path("p"))
    user = await admin(cluster)
    assert (user.username, user.is_admin, user.require_password_change) == ("admin", True, True)
    assert await verify_password(user.hashed_password, "Made_1_up")
    await ensure_admin(cluster.store, given="Another_1", made=never, kept_in=Path("p"))
    assert await admin(cluster) == user


async def test_a_given_password_stays(cluster: Cluster) -> None:
    await ensure_admin(cluster.store, given="Given_1_me", made=never, kept_in=Path("p"))
    user = await admin(cluster)
    assert not user.require_password_change
    assert await verify_password(user.hashed_password, "Given_1_me")


async def test_two_at_once_make_one(cluster: Cluster) -> None:
    async with trio.open_nursery() as nursery:
        for password in ("One_1_one", "Two_2_two"):

            async def ensure(password: str = password) -> None:
                await ensure_admin(cluster.store, given=password, made=never, kept_in=Path("p"))

            nursery.start_soon(ensure)
    assert (await admin(cluster)).is_admin


async def test_a_server_that_was_not_the_first_keeps_no_password_that_is_nobodys(
    cluster: Cluster, tmp_path: Path
) -> None:
    """Another one makes the administrator while this one makes a password."""
    kept = tmp_path / "initial_admin_password"

    def made() -> str:
        trio.from_thread.run(cluster.store.write, lambda tx: tx.insert(User(username="admin")))
        kept.write_text("Made_2_late")
        return "Made_2_late"

    await ensure_admin(cluster.store, given=None, made=made, kept_in=kept)
    assert not kept.exists()
    assert not (await admin(cluster)).hashed_password


async def test_a_password_that_cannot_be_one_is_refused_by_its_option(cluster: Cluster) -> None:
    with pytest.raises(Invalid, match="--bootstrap-password"):
        await ensure_admin(cluster.store, given="x" * 2000, made=never, kept_in=Path("p"))
