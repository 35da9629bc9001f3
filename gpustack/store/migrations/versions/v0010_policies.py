"""Taints of workers; tolerations, labels and anti-affinity of deployments."""

from __future__ import annotations

import sqlalchemy as sa

from gpustack.store.column import LongText
from gpustack.store.migrations import step

revision = "0010"
down_revision = "0009"


def upgrade() -> None:
    for table, name, empty in (
        ("workers", "taints", "[]"),
        ("models", "labels", "{}"),
        ("models", "tolerations", "[]"),
    ):
        column = sa.Column(name, LongText, nullable=False, server_default=step.text_default(empty))
        step.add_column(table, column)
    step.add_column("models", sa.Column("anti_affinity", LongText, nullable=True))


def downgrade() -> None:
    for name in ("anti_affinity", "tolerations", "labels"):
        step.drop_column("models", name)
    step.drop_column("workers", "taints")
