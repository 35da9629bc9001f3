"""The first administrator, made when there is none."""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path

from gpustack.domain.access import User
from gpustack.errors import Invalid
from gpustack.identity.passwords import LONGEST, hash_password
from gpustack.nursery.limiter import threads
from gpustack.store.store import Store
from gpustack.store.transaction import Tx

log = logging.getLogger(__name__)

ADMIN = "admin"
_THREADS = threads("first password", 1)


async def ensure_admin(store: Store, *, given: str | None, made: Callable[[], str], kept_in: Path) -> None:
    """See to it that a user ``admin`` exists.

    With a ``given`` password it is that one; else one is ``made`` (and kept in a file by who makes it), to be changed
    at the first login. Raises ``Invalid`` for a given one that is too long, and what ``made`` raises.
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
