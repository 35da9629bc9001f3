"""Instances made of several processes, and what is said of each."""

from __future__ import annotations

import sqlalchemy as sa

from gpustack.store.column import Count, LongText
from gpustack.store.migrations import step

revision = "0006"
down_revision = "0005"


def upgrade() -> None:
    step.add_column("model_instances", sa.Column("attempt", Count, nullable=False, server_default="0"))
    for name, empty in (("address", ""), ("members", "[]"), ("ended", "[]")):
        column = sa.Column(name, LongText, nullable=False, server_default=step.text_default(empty))
        step.add_column("model_instances", column)


def downgrade() -> None:
    for name in ("ended", "members", "address", "attempt"):
        step.drop_column("model_instances", name)
