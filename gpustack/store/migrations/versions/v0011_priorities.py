"""Priorities of models, places that are kept for instances while others make room, and how far a drain is."""

from __future__ import annotations

import sqlalchemy as sa

from gpustack.store.column import Count, Flag, LongText
from gpustack.store.migrations import step

revision = "0011"
down_revision = "0010"


def upgrade() -> None:
    step.add_column("models", sa.Column("priority", Count, nullable=False, server_default="0"))
    step.add_column("models", sa.Column("preempts", Flag, nullable=False, server_default=sa.false()))
    step.add_column("models", sa.Column("preemptible", Flag, nullable=False, server_default=sa.true()))
    step.add_column("model_instances", sa.Column("reserved", LongText, nullable=True))
    displaced = sa.Column("displaced_by", LongText, nullable=False, server_default=step.text_default(""))
    step.add_column("model_instances", displaced)
    step.add_column("workers", sa.Column("drain_total", Count, nullable=True))


def downgrade() -> None:
    step.drop_column("workers", "drain_total")
    for name in ("displaced_by", "reserved"):
        step.drop_column("model_instances", name)
    for name in ("preemptible", "preempts", "priority"):
        step.drop_column("models", name)
