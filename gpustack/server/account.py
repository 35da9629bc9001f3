"""Accounts of people who sign in with an identity provider, and the first administrator."""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

from gpustack.domain.access import ExternalIdentity, Session, User
from gpustack.errors import Forbidden, Invalid
from gpustack.identity.passwords import LONGEST, hash_password
from gpustack.identity.person import ExternalPerson, looks_like
from gpustack.nursery.limiter import threads
from gpustack.store.store import Store
from gpustack.store.transaction import Tx

log = logging.getLogger(__name__)


def account_of(tx: Tx, person: ExternalPerson, admin_groups: frozenset[str] | None) -> User:
    """The account of a person who has just signed in: created when there is none, with the name and picture that the
    provider tells now.

    An account is found by issuer and subject, never by a name: a name that another account has is refused. With
    ``admin_groups`` the role follows the person's groups at each login, but the last administrator stays one; without
    it administrators give the role. Raises ``Forbidden`` for a name that is taken and for an account that is disabled.
    """
    identity = tx.find(ExternalIdentity, issuer=person.issuer, subject=person.subject)
    user = None if identity is None else tx.get(User, identity.user_id)
    is_admin = None if admin_groups is None else bool((person.groups or frozenset()) & admin_groups)
    if user is None:
        _refuse_taken(tx, person)
        user = tx.insert(
            User(
                username=person.username,
                full_name=person.full_name,
                avatar_url=person.avatar_url,
                source=person.source,
                is_admin=bool(is_admin),
            )
        )
        if identity is not None:
            tx.delete(ExternalIdentity, identity.id)
        tx.insert(ExternalIdentity(user_id=user.id, issuer=person.issuer, subject=person.subject))
        return user
    if user.source is not person.source:
        raise Forbidden(
            f"This identity belongs to an account that signs in by {user.source}: an administrator can delete it"
        )
    if not user.is_active:
        raise Forbidden("This account is disabled: ask an administrator to enable it")
    return _refreshed(tx, user, person, is_admin)


def _refuse_taken(tx: Tx, person: ExternalPerson) -> None:
    wanted = looks_like(person.username)
    if any(looks_like(user.username) == wanted for user in tx.all(User).values()):
        raise Forbidden(
            f"The name '{person.username}' belongs to another account here, which is not yours by that: ask an "
            "administrator to rename that account, or to have names taken from elsewhere (--external-auth-name)"
        )


def _refreshed(tx: Tx, user: User, person: ExternalPerson, is_admin: bool | None) -> User:
    fields: dict[str, Any] = {}
    if person.full_name is not None:
        fields["full_name"] = person.full_name
    if person.avatar_url is not None:
        fields["avatar_url"] = person.avatar_url
    if is_admin is not None and is_admin != user.is_admin:
        if is_admin or _has_other_admin(tx, user):
            fields["is_admin"] = is_admin
            end_sessions(tx, user.id)  # of the former rights
        else:
            log.warning("The last administrator stays one, whatever the groups: user=%s", user.username)
    return tx.change(User, user.id, **fields)


def _has_other_admin(tx: Tx, user: User) -> bool:
    return any(one.is_admin and one.is_active and one.id != user.id for one in tx.all(User).values())


def end_sessions(tx: Tx, user_id: int) -> None:
    """End all logins of a user, whose rights or password have changed."""
    for session in list(tx.all(Session).values()):
        if session.user_id == user_id:
            tx.delete(Session, session.id)


def forget_identities(tx: Tx, user_id: int) -> None:
    """Delete the external identities of a user: who signs in with one of them is no longer this user."""
    for identity in list(tx.all(ExternalIdentity).values()):
        if identity.user_id == user_id:
            tx.delete(ExternalIdentity, identity.id)


ADMIN = "admin"
_THREADS = threads("first password", 1)


async def ensure_admin(store: Store, *, given: str | None, made: Callable[[], str], kept_in: Path) -> None:
    """Create the user ``admin`` if there is none.

    The password is ``given``; else ``made`` makes one and keeps it in the file ``kept_in``, and it must be changed at
    the first login. Raises ``Invalid`` for a given one that is too long, and what ``made`` raises.
    """
    if store.snapshot.find(User, username=ADMIN) is not None:
        return
    if store.snapshot.unread_of(User):
        log.warning("No user admin is made: it may be the one that cannot be read")
        return
    password: str = given if given else await _THREADS.run(made)
    if len(password) > LONGEST:
        raise Invalid(f"--bootstrap-password has more than {LONGEST} characters")
    admin = User(
        username=ADMIN,
        is_admin=True,
        full_name="Default System Admin",
        require_password_change=not given,
        hashed_password=await hash_password(password),
    )

    def work(tx: Tx) -> bool:
        if tx.find(User, username=ADMIN) is not None:
            return False
        tx.insert(admin)
        return True

    created = await store.write(work)
    if created and not given:
        log.info("Created user admin; its first password is in %s", kept_in)
    elif not created and not given:
        await _THREADS.run(kept_in.unlink, True)  # another server was first: this one is nobody's
