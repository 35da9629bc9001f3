"""Whoever another party sends is the account of that identity, and never one that is merely called the same."""

from __future__ import annotations

from typing import Any

import attrs
import pytest

from gpustack.domain.access import ExternalIdentity, Session, User, UserSource
from gpustack.errors import Forbidden
from gpustack.identity.person import ExternalPerson
from gpustack.server.account import account_of, forget_identities
from gpustack.store.store import Store

from .cluster import Cluster

ADMINS = frozenset({"gpu-admins"})
ADA = ExternalPerson(
    source=UserSource.OIDC, issuer="https://idp.example", subject="1", username="ada", full_name="Ada"
)


@pytest.fixture
def store(cluster: Cluster) -> Store:
    return cluster.store


async def signed_in(store: Store, person: ExternalPerson = ADA, groups: Any = None) -> User:
    return await store.write(lambda tx: account_of(tx, person, groups))


async def test_the_first_login_makes_an_account_and_the_next_finds_it(store: Store) -> None:
    made = await signed_in(store)
    assert (made.username, made.is_admin, made.source, made.hashed_password) == (
        "ada",
        False,
        UserSource.OIDC,
        "",
    )
    later = await signed_in(
        store, attrs.evolve(ADA, username="countess", full_name="Ada L.", avatar_url="https://x/a")
    )
    assert later.id == made.id
    assert (later.username, later.full_name, later.avatar_url) == ("ada", "Ada L.", "https://x/a")
    unsaid = await signed_in(store, attrs.evolve(ADA, full_name=None))
    assert unsaid.full_name == "Ada L."


@pytest.mark.attack("access")
@pytest.mark.parametrize("name", ["admin", "Admin", "ADMIN", "\uff41dmin"], ids=ascii)
async def test_nobody_becomes_an_account_by_being_called_like_it(store: Store, name: str) -> None:
    await store.write(lambda tx: tx.insert(User(username="admin", is_admin=True)))
    with pytest.raises(Forbidden, match="belongs to another account"):
        await signed_in(store, attrs.evolve(ADA, username=name))
    assert not store.snapshot.all(ExternalIdentity)


@pytest.mark.attack("access")
async def test_the_same_subject_of_another_issuer_is_somebody_else(store: Store) -> None:
    made = await signed_in(store)
    other = await signed_in(store, attrs.evolve(ADA, issuer="https://other.example", username="ada2"))
    assert other.id != made.id
    with pytest.raises(Forbidden, match="signs in by OIDC"):
        await signed_in(store, attrs.evolve(ADA, source=UserSource.SAML))


@pytest.mark.attack("access")
async def test_a_disabled_account_stays_out(store: Store) -> None:
    made = await signed_in(store)
    await store.write(lambda tx: tx.change(User, made.id, is_active=False))
    with pytest.raises(Forbidden, match="disabled"):
        await signed_in(store)


async def test_a_deleted_account_is_made_anew(store: Store) -> None:
    made = await signed_in(store)

    def delete(tx: Any) -> None:
        forget_identities(tx, made.id)
        tx.delete(User, made.id)

    await store.write(delete)
    assert (await signed_in(store)).id != made.id
    assert len(store.snapshot.all(ExternalIdentity)) == 1


async def test_an_identity_that_was_left_behind_by_its_account_gets_a_new_one(store: Store) -> None:
    made = await signed_in(store)
    await store.write(lambda tx: tx.delete(User, made.id))
    again = await signed_in(store)
    (identity,) = store.snapshot.all(ExternalIdentity).values()
    assert identity.user_id == again.id != made.id


async def test_groups_decide_the_role_at_each_login_and_its_change_ends_older_logins(store: Store) -> None:
    await store.write(lambda tx: tx.insert(User(username="admin", is_admin=True)))
    within = attrs.evolve(ADA, groups=ADMINS | {"staff"})
    made = await signed_in(store, within, ADMINS)
    assert made.is_admin
    session = Session(user_id=made.id, token_hash="x", expires_at=store.snapshot.users[made.id].created_at)
    await store.write(lambda tx: tx.insert(session))
    assert (await signed_in(store, within, ADMINS)).is_admin
    assert store.snapshot.all(Session)
    without = await signed_in(store, attrs.evolve(ADA, groups=frozenset({"staff"})), ADMINS)
    assert not without.is_admin
    assert not store.snapshot.all(Session)


async def test_roles_given_here_stay_where_groups_decide_nothing(store: Store) -> None:
    made = await signed_in(store)
    await store.write(lambda tx: tx.change(User, made.id, is_admin=True))
    assert (await signed_in(store, attrs.evolve(ADA, groups=frozenset()))).is_admin


async def test_the_last_administrator_stays_one(store: Store) -> None:
    await signed_in(store, attrs.evolve(ADA, groups=ADMINS), ADMINS)
    assert (await signed_in(store, attrs.evolve(ADA, groups=frozenset()), ADMINS)).is_admin
