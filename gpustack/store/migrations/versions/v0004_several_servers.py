"""Tables for several servers beside the records: the servers, their secrets, and when workers were last heard."""

from __future__ import annotations

import sqlalchemy as sa

from gpustack.store.column import BigId, Count, Flag, LongText, Name
from gpustack.store.migrations import step

revision = "0004"
down_revision = "0003"


def upgrade() -> None:
    step.create_table(
        "servers",
        sa.Column("server_uuid", Name, nullable=False),
        sa.Column("run", Name, nullable=False),
        sa.Column("url", LongText, nullable=False),
        sa.Column("version_running", LongText, nullable=False),
        sa.Column("seen", Count, nullable=False),
        sa.PrimaryKeyConstraint("server_uuid", name="pk_servers"),
    )
    step.create_table(
        "cluster_secrets",
        sa.Column("name", Name, nullable=False),
        sa.Column("value", LongText, nullable=False),
        sa.PrimaryKeyConstraint("name", name="pk_cluster_secrets"),
    )
    step.create_table(
        "heartbeats",
        sa.Column("worker_id", BigId, autoincrement=False, nullable=False),
        sa.Column("heard", Count, nullable=False),
        sa.PrimaryKeyConstraint("worker_id", name="pk_heartbeats"),
    )
    step.add_column("workers", sa.Column("leaving", Flag, nullable=False, server_default=sa.false()))


def downgrade() -> None:
    step.drop_column("workers", "leaving")
    step.drop_table("heartbeats")
    step.drop_table("cluster_secrets")
    step.drop_table("servers")
