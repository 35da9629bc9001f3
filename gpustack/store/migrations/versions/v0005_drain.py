"""Workers that are drained."""

from __future__ import annotations

import sqlalchemy as sa

from gpustack.store.column import Flag
from gpustack.store.migrations import step

revision = "0005"
down_revision = "0004"


def upgrade() -> None:
    step.add_column("workers", sa.Column("draining", Flag, nullable=False, server_default=sa.false()))


def downgrade() -> None:
    step.drop_column("workers", "draining")
