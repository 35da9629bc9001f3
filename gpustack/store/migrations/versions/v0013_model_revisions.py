"""The revisions of models."""

from __future__ import annotations

import sqlalchemy as sa

from gpustack.store.column import BigId, Count, LongText, Utc
from gpustack.store.migrations import step

revision = "0013"
down_revision = "0012"


def upgrade() -> None:
    step.create_table(
        "model_revisions",
        sa.Column("id", BigId, autoincrement=True, nullable=False),
        sa.Column("version", Count, nullable=False),
        sa.Column("created_at", Utc(), nullable=True),
        sa.Column("updated_at", Utc(), nullable=True),
        sa.Column("model_id", Count, nullable=False),
        sa.Column("number", Count, nullable=False),
        sa.Column("model", LongText, nullable=False),
        sa.Column("at", Utc(), nullable=True),
        sa.Column("changed_by", LongText, nullable=False),
        sa.Column("rolled_back_to", Count, nullable=True),
        sa.PrimaryKeyConstraint("id", name="pk_model_revisions"),
        sa.UniqueConstraint("model_id", "number", name="uq_model_revisions_model_id_number"),
        sqlite_autoincrement=True,
    )


def downgrade() -> None:
    step.drop_table("model_revisions")
