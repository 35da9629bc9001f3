"""The first administrator, made when there is none."""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path

from gpustack.domain.access import User
from gpustack.identity.passwords import hash_password
from gpustack.store.store import Store

log = logging.getLogger(__name__)

ADMIN = "admin"


async def ensure_admin(store: Store, *, given: str | None, made: Callable[[], str], kept_in: Path) -> None:
    """See to it that a user ``admin`` exists.

    With a ``given`` password it is that one; else one is ``made`` (and kept in a file by who makes it), to be changed
    at the first login.
    """
    if store.snapshot.find(User, username=ADMIN) is not None:
        return
    password = given or made()
    admin = User(
        username=ADMIN,
        is_admin=True,
        full_name="Default System Admin",
        require_password_change=given is None,
        hashed_password=await hash_password(password),
    )
    await store.write(lambda tx: None if tx.find(User, username=ADMIN) else tx.insert(admin))
    if given is None:
        log.info("Created user admin; its first password is in %s", kept_in)
