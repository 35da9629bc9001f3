"""Leases by the clock of the database: at most one holder, and a term that grows with each change of hands."""

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
    """The right to lead, once held: ``number`` is greater than that of every holder before.

    A write that carries a term is refused once somebody else has a later one, however late it comes.
    """

    name: str
    number: int


class LeaseLost(Conflict):
    """A write carried a term that is over: whoever sent it leads no more."""


def take(conn: sa.Connection, dialect: Dialect, name: str, holder: str, ttl: float) -> LeaseTerm | None:
    """Take the lease for ``ttl`` seconds or prolong it; ``None`` while somebody else has it.

    The same term goes on as long as it is prolonged in time.
    """
    given = {"name": name, "holder": holder, "ttl": round(ttl * 1000)}
    now = dialect.clock
    # MySQL assigns from left to right: the term is reckoned from the old holder first.
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
    """Let the lease end now, if this term still holds it, so that the next need not wait."""
    mine = sa.and_(leases.c.name == term.name, leases.c.term == term.number, leases.c.holder == holder)
    conn.execute(sa.update(leases).where(mine).values(expires=0))


def stands(conn: sa.Connection, term: LeaseTerm) -> bool:
    """Whether nobody has a later term; until the end of this transaction nobody can begin one."""
    query = sa.select(leases.c.term).where(leases.c.name == term.name).with_for_update()
    return bool(conn.execute(query).scalar() == term.number)
