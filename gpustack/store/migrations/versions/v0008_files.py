"""How fast a model file comes and where from, which files stay, and the adapters of deployments and replicas."""

from __future__ import annotations

import sqlalchemy as sa

from gpustack.store.column import Flag, LongText, Real, Utc
from gpustack.store.migrations import step

revision = "0008"
down_revision = "0007"


def upgrade() -> None:
    step.add_column("model_files", sa.Column("download_speed", Real, nullable=True))
    text = sa.Column("fetched_from", LongText, nullable=False, server_default=step.text_default(""))
    step.add_column("model_files", text)
    step.add_column("model_files", sa.Column("pinned", Flag, nullable=False, server_default=sa.false()))
    step.add_column("model_files", sa.Column("last_used_at", Utc(), nullable=True))
    for table in ("models", "model_instances"):
        column = sa.Column("lora_adapters", LongText, nullable=False, server_default=step.text_default("[]"))
        step.add_column(table, column)


def downgrade() -> None:
    step.drop_column("model_instances", "lora_adapters")
    step.drop_column("models", "lora_adapters")
    for name in ("last_used_at", "pinned", "fetched_from", "download_speed"):
        step.drop_column("model_files", name)
