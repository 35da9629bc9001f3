"""The head of the changes and leases, for several servers on one database."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

from gpustack.store.column import BigId, Count, Name
from gpustack.store.migrations import step

revision = "0002"
down_revision = "0001"

_HEADS = sa.table("heads", sa.column("id"), sa.column("revision"))
_CHANGES = sa.table("changes", sa.column("revision"))


def upgrade() -> None:
    step.create_table(
        "heads",
        sa.Column("id", BigId, autoincrement=False, nullable=False),
        sa.Column("revision", Count, nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_heads"),
    )
    conn = op.get_bind()
    if conn.execute(sa.select(_HEADS.c.id)).first() is None:
        last = conn.execute(sa.select(sa.func.max(_CHANGES.c.revision))).scalar() or 0
        conn.execute(sa.insert(_HEADS).values(id=1, revision=last))
    step.create_table(
        "leases",
        sa.Column("name", Name, nullable=False),
        sa.Column("holder", Name, nullable=False),
        sa.Column("term", Count, nullable=False),
        sa.Column("expires", Count, nullable=False),
        sa.PrimaryKeyConstraint("name", name="pk_leases"),
    )


def downgrade() -> None:
    step.drop_table("leases")
    step.drop_table("heads")
