"""Backends that administrators describe, and what of them a deployment runs."""

from __future__ import annotations

import sqlalchemy as sa

from gpustack.store.column import BigId, Count, LongText, Name, Utc
from gpustack.store.migrations import step

revision = "0007"
down_revision = "0006"


def upgrade() -> None:
    step.create_table(
        "inference_backends",
        sa.Column("id", BigId, autoincrement=True, nullable=False),
        sa.Column("version", Count, nullable=False),
        sa.Column("created_at", Utc(), nullable=True),
        sa.Column("updated_at", Utc(), nullable=True),
        sa.Column("name", Name, nullable=False),
        sa.Column("description", LongText, nullable=True),
        sa.Column("versions", LongText, nullable=False),
        sa.Column("default_version", LongText, nullable=False),
        sa.Column("env", LongText, nullable=False),
        sa.Column("health_path", LongText, nullable=True),
        sa.Column("categories", LongText, nullable=False),
        sa.Column("metrics", LongText, nullable=False),
        sa.Column("install", LongText, nullable=True),
        sa.PrimaryKeyConstraint("id", name="pk_inference_backends"),
        sa.UniqueConstraint("name", name="uq_inference_backends_name"),
        sqlite_autoincrement=True,
    )
    step.add_column("models", sa.Column("backend_spec", LongText, nullable=True))


def downgrade() -> None:
    step.drop_column("models", "backend_spec")
    step.drop_table("inference_backends")
