"""What servers that share a database tell each other of the loads of their workers."""

from __future__ import annotations

import sqlalchemy as sa

from gpustack.store.column import Count, LongText, Name
from gpustack.store.migrations import step

revision = "0014"
down_revision = "0013"


def upgrade() -> None:
    step.create_table(
        "worker_loads",
        sa.Column("server_uuid", Name, nullable=False),
        sa.Column("written", Count, nullable=False),
        sa.Column("loads", LongText, nullable=False),
        sa.PrimaryKeyConstraint("server_uuid", name="pk_worker_loads"),
    )


def downgrade() -> None:
    step.drop_table("worker_loads")
