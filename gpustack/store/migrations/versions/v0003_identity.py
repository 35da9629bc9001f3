"""Sign-on at identity providers, scopes and limits of keys, access to models, and the audit trail."""

from __future__ import annotations

from typing import Any

import sqlalchemy as sa

from gpustack.store.column import BigId, Count, Flag, LongText, Name, ShortText, Utc
from gpustack.store.migrations import step

revision = "0003"
down_revision = "0002"


def upgrade() -> None:
    step.create_table(
        "external_identities",
        *_common(),
        sa.Column("user_id", Count, nullable=False),
        sa.Column("issuer", Name, nullable=False),
        sa.Column("subject", Name, nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_external_identities"),
        sa.UniqueConstraint("issuer", "subject", name="uq_external_identities_issuer_subject"),
        sqlite_autoincrement=True,
    )
    step.create_index("ix_external_identities_user_id", "external_identities", ["user_id"])
    step.create_table(
        "sign_ins",
        *_common(),
        sa.Column("source", ShortText, nullable=False),
        sa.Column("state_hash", Name, nullable=False),
        sa.Column("browser_hash", LongText, nullable=False),
        sa.Column("secret", LongText, nullable=False),
        sa.Column("next_path", LongText, nullable=False),
        sa.Column("expires_at", Utc(), nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_sign_ins"),
        sa.UniqueConstraint("state_hash", name="uq_sign_ins_state_hash"),
        sqlite_autoincrement=True,
    )
    step.create_table(
        "used_assertions",
        *_common(),
        sa.Column("assertion_hash", Name, nullable=False),
        sa.Column("expires_at", Utc(), nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_used_assertions"),
        sa.UniqueConstraint("assertion_hash", name="uq_used_assertions_assertion_hash"),
        sqlite_autoincrement=True,
    )
    step.create_table(
        "budget_draws",
        *_common(),
        sa.Column("subject", Name, nullable=False),
        sa.Column("period", Name, nullable=False),
        sa.Column("drawn", Count, nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_budget_draws"),
        sa.UniqueConstraint("subject", "period", name="uq_budget_draws_subject_period"),
        sqlite_autoincrement=True,
    )
    step.create_table(
        "audit_events",
        *_common(),
        sa.Column("at", Utc(), nullable=False),
        sa.Column("action", LongText, nullable=False),
        sa.Column("outcome", ShortText, nullable=False),
        sa.Column("status", Count, nullable=False),
        sa.Column("actor_id", Count, nullable=True),
        sa.Column("actor_name", LongText, nullable=False),
        sa.Column("actor_role", LongText, nullable=False),
        sa.Column("means", LongText, nullable=False),
        sa.Column("api_key_id", Count, nullable=True),
        sa.Column("address", LongText, nullable=False),
        sa.Column("target_type", LongText, nullable=False),
        sa.Column("target_id", Count, nullable=True),
        sa.Column("target_name", LongText, nullable=False),
        sa.Column("details", LongText, nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_audit_events"),
        sqlite_autoincrement=True,
    )
    step.create_index("ix_audit_events_at", "audit_events", ["at"])
    for table, columns in _added().items():
        for column in columns:
            step.add_column(table, column)


def downgrade() -> None:
    for table, columns in _added().items():
        for column in columns:
            step.drop_column(table, column.name)
    step.drop_index("ix_audit_events_at", "audit_events")
    step.drop_table("audit_events")
    step.drop_table("budget_draws")
    step.drop_table("used_assertions")
    step.drop_table("sign_ins")
    step.drop_index("ix_external_identities_user_id", "external_identities")
    step.drop_table("external_identities")


def _common() -> tuple[sa.Column[Any], ...]:
    return (
        sa.Column("id", BigId, autoincrement=True, nullable=False),
        sa.Column("version", Count, nullable=False),
        sa.Column("created_at", Utc(), nullable=True),
        sa.Column("updated_at", Utc(), nullable=True),
    )


def _added() -> dict[str, tuple[sa.Column[Any], ...]]:
    """What rows that are there already get: nothing that was allowed is forbidden by an upgrade."""
    return {
        "users": (sa.Column("limits", LongText, nullable=True),),
        "api_keys": (
            sa.Column("is_enabled", Flag, nullable=False, server_default=sa.true()),
            sa.Column("scopes", LongText, nullable=True),
            sa.Column("allowed_models", LongText, nullable=True),
            sa.Column("limits", LongText, nullable=True),
            sa.Column("last_used_at", Utc(), nullable=True),
        ),
        "models": (
            sa.Column("access", ShortText, nullable=False, server_default="authed"),
            sa.Column("allowed_user_ids", LongText, nullable=True),
            sa.Column("limits", LongText, nullable=True),
        ),
        "sessions": (
            sa.Column("source", ShortText, nullable=False, server_default="Local"),
            sa.Column("logout_hint", LongText, nullable=True),
        ),
        "workers": (
            sa.Column("credential_since", Utc(), nullable=True),
            sa.Column("former_credential_hash", LongText, nullable=True),
            sa.Column("barred", Flag, nullable=False, server_default=sa.false()),
        ),
    }
