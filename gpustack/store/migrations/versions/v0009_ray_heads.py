"""The head of Ray."""

from __future__ import annotations

import sqlalchemy as sa

from gpustack.store.column import BigId, Count, LongText, Name, Utc
from gpustack.store.migrations import step

revision = "0009"
down_revision = "0008"


def upgrade() -> None:
    step.create_table(
        "ray_heads",
        sa.Column("id", BigId, autoincrement=True, nullable=False),
        sa.Column("version", Count, nullable=False),
        sa.Column("created_at", Utc(), nullable=True),
        sa.Column("updated_at", Utc(), nullable=True),
        sa.Column("name", Name, nullable=False),
        sa.Column("address", LongText, nullable=False),
        sa.Column("incarnation", LongText, nullable=False),
        sa.Column("ray_version", LongText, nullable=True),
        sa.Column("server_uuid", LongText, nullable=False),
        sa.Column("worker_uuid", LongText, nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_ray_heads"),
        sa.UniqueConstraint("name", name="uq_ray_heads_name"),
        sqlite_autoincrement=True,
    )


def downgrade() -> None:
    step.drop_table("ray_heads")
