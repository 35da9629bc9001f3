"""What runs of engines have shown of the memory that they take."""

from __future__ import annotations

import sqlalchemy as sa

from gpustack.store.column import BigId, Count, LongText, Name, Utc
from gpustack.store.migrations import step

revision = "0012"
down_revision = "0011"


def upgrade() -> None:
    step.create_table(
        "memory_records",
        sa.Column("id", BigId, autoincrement=True, nullable=False),
        sa.Column("version", Count, nullable=False),
        sa.Column("created_at", Utc(), nullable=True),
        sa.Column("updated_at", Utc(), nullable=True),
        sa.Column("key", Name, nullable=False),
        sa.Column("engine", LongText, nullable=False),
        sa.Column("build", LongText, nullable=False),
        sa.Column("architecture", LongText, nullable=False),
        sa.Column("device", LongText, nullable=False),
        sa.Column("settings", LongText, nullable=False),
        sa.Column("samples", LongText, nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_memory_records"),
        sa.UniqueConstraint("key", name="uq_memory_records_key"),
        sqlite_autoincrement=True,
    )
    step.add_column("model_instances", sa.Column("memory", LongText, nullable=True))


def downgrade() -> None:
    step.drop_column("model_instances", "memory")
    step.drop_table("memory_records")
