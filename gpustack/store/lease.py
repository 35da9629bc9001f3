"""Leases: at most one holder at a time by the clock of the database, and a term that grows with each new holder."""

from __future__ import annotations

import attrs
import sqlalchemy as sa

from gpustack.errors import Conflict

from .dialect import Dialect
from .table import leases

LEADER = "leader"
"""The lease of the one server whose control loops run."""


@attrs.frozen
class LeaseTerm:
    """One tenure of a lease. ``number`` is greater than that of every earlier holder: it is a fencing token.

    A write with a term is refused once another holder has a later one.
    """

    name: str
    number: int


class LeaseLost(Conflict):
    """A write carried a term that is over: its sender no longer holds the lease."""


def take(conn: sa.Connection, dialect: Dialect, name: str, holder: str, ttl: float) -> LeaseTerm | None:
    """Take the lease for ``ttl`` seconds or renew it; ``None`` while another holder has it.

    The term stays the same while it is renewed in time.
    """
    given = {"name": name, "holder": holder, "ttl": round(ttl * 1000)}
    now = dialect.clock
    # MySQL assigns from left to right, so the term, which depends on the old holder, comes first.
    taken = conn.execute(
        sa.text(
            "UPDATE leases SET"
            f" term = CASE WHEN holder = :holder AND expires > {now} THEN term ELSE term + 1 END,"
            f" expires = {now} + :ttl, holder = :holder"
            f" WHERE name = :name AND (holder = :holder OR expires <= {now})"
        ),
        given,
    )
    if not taken.rowcount and not _first(conn, now, given):
        return None
    query = sa.select(leases.c.term).where(leases.c.name == name, leases.c.holder == holder)
    number = conn.execute(query).scalar()
    return None if number is None else LeaseTerm(name, number)


def _first(conn: sa.Connection, now: str, given: dict[str, object]) -> bool:
    try:
        with conn.begin_nested():
            conn.execute(
                sa.text(
                    "INSERT INTO leases (name, holder, term, expires)"
                    f" VALUES (:name, :holder, 1, {now} + :ttl)"
                ),
                given,
            )
    except sa.exc.IntegrityError:
        return False
    return True


def give_up(conn: sa.Connection, term: LeaseTerm, holder: str) -> None:
    """End the lease now, if it is still held in this term, so that the next holder need not wait."""
    mine = sa.and_(leases.c.name == term.name, leases.c.term == term.number, leases.c.holder == holder)
    conn.execute(sa.update(leases).where(mine).values(expires=0))


def stands(conn: sa.Connection, term: LeaseTerm) -> bool:
    """Whether the term is the latest. Until this transaction ends, nobody can begin a later one."""
    query = sa.select(leases.c.term).where(leases.c.name == term.name).with_for_update()
    return bool(conn.execute(query).scalar() == term.number)
