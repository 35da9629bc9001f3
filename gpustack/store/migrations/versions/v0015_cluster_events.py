"""What happened in the cluster."""

from __future__ import annotations

import sqlalchemy as sa

from gpustack.store.column import BigId, Count, LongText, ShortText, Utc
from gpustack.store.migrations import step

revision = "0015"
down_revision = "0014"


def upgrade() -> None:
    step.create_table(
        "cluster_events",
        sa.Column("id", BigId, autoincrement=True, nullable=False),
        sa.Column("version", Count, nullable=False),
        sa.Column("created_at", Utc(), nullable=True),
        sa.Column("updated_at", Utc(), nullable=True),
        sa.Column("at", Utc(), nullable=False),
        sa.Column("kind", LongText, nullable=False),
        sa.Column("severity", ShortText, nullable=False),
        sa.Column("object_kind", ShortText, nullable=False),
        sa.Column("object_id", Count, nullable=False),
        sa.Column("object_name", LongText, nullable=False),
        sa.Column("text", LongText, nullable=False),
        sa.Column("actor", LongText, nullable=False),
        sa.Column("model_id", Count, nullable=True),
        sa.Column("worker_id", Count, nullable=True),
        sa.Column("data", LongText, nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_cluster_events"),
        sqlite_autoincrement=True,
    )


def downgrade() -> None:
    step.drop_table("cluster_events")
