"""The tables of the first release."""

from __future__ import annotations

import sqlalchemy as sa

from gpustack.store.column import BigId, Count, Flag, LongText, Name, Real, ShortText, Utc
from gpustack.store.migrations import step

revision = "0001"
down_revision = None


def upgrade() -> None:
    step.create_table(
        "api_keys",
        sa.Column("id", BigId, autoincrement=True, nullable=False),
        sa.Column("version", Count, nullable=False),
        sa.Column("created_at", Utc(), nullable=True),
        sa.Column("updated_at", Utc(), nullable=True),
        sa.Column("name", Name, nullable=False),
        sa.Column("user_id", Count, nullable=False),
        sa.Column("access_key", Name, nullable=False),
        sa.Column("secret_hash", LongText, nullable=False),
        sa.Column("description", LongText, nullable=True),
        sa.Column("expires_at", Utc(), nullable=True),
        sa.PrimaryKeyConstraint("id", name="pk_api_keys"),
        sa.UniqueConstraint("access_key", name="uq_api_keys_access_key"),
        sa.UniqueConstraint("user_id", "name", name="uq_api_keys_user_id_name"),
        sqlite_autoincrement=True,
    )
    step.create_table(
        "changes",
        sa.Column("revision", BigId, autoincrement=True, nullable=False),
        sa.Column("at", Utc(), nullable=False),
        sa.Column("kind", ShortText, nullable=False),
        sa.Column("table_name", ShortText, nullable=False),
        sa.Column("record_id", Count, nullable=False),
        sa.Column("record", LongText, nullable=False),
        sa.PrimaryKeyConstraint("revision", name="pk_changes"),
        sqlite_autoincrement=True,
    )
    step.create_table(
        "model_files",
        sa.Column("id", BigId, autoincrement=True, nullable=False),
        sa.Column("version", Count, nullable=False),
        sa.Column("created_at", Utc(), nullable=True),
        sa.Column("updated_at", Utc(), nullable=True),
        sa.Column("worker_id", Count, nullable=False),
        sa.Column("source", LongText, nullable=False),
        sa.Column("source_index", Name, nullable=False),
        sa.Column("local_dir", Name, nullable=False),
        sa.Column("cleanup_on_delete", Flag, nullable=False),
        sa.Column("size", Count, nullable=True),
        sa.Column("download_progress", Real, nullable=True),
        sa.Column("resolved_paths", LongText, nullable=False),
        sa.Column("state", ShortText, nullable=False),
        sa.Column("state_message", LongText, nullable=False),
        sa.Column("deleted_at", Utc(), nullable=True),
        sa.PrimaryKeyConstraint("id", name="pk_model_files"),
        sa.UniqueConstraint(
            "worker_id", "source_index", "local_dir", name="uq_model_files_worker_id_source_index_local_dir"
        ),
        sqlite_autoincrement=True,
    )
    step.create_table(
        "model_instances",
        sa.Column("id", BigId, autoincrement=True, nullable=False),
        sa.Column("version", Count, nullable=False),
        sa.Column("created_at", Utc(), nullable=True),
        sa.Column("updated_at", Utc(), nullable=True),
        sa.Column("name", Name, nullable=False),
        sa.Column("model_id", Count, nullable=False),
        sa.Column("model_name", LongText, nullable=False),
        sa.Column("source", LongText, nullable=False),
        sa.Column("generation", Count, nullable=False),
        sa.Column("placement", LongText, nullable=True),
        sa.Column("state", ShortText, nullable=False),
        sa.Column("state_message", LongText, nullable=False),
        sa.Column("state_since", Utc(), nullable=True),
        sa.Column("pid", Count, nullable=True),
        sa.Column("port", Count, nullable=True),
        sa.Column("ports", LongText, nullable=False),
        sa.Column("download_progress", Real, nullable=True),
        sa.Column("resolved_path", LongText, nullable=True),
        sa.Column("restart_count", Count, nullable=False),
        sa.Column("last_restart_time", Utc(), nullable=True),
        sa.Column("next_retry_at", Utc(), nullable=True),
        sa.Column("deleted_at", Utc(), nullable=True),
        sa.PrimaryKeyConstraint("id", name="pk_model_instances"),
        sa.UniqueConstraint("name", name="uq_model_instances_name"),
        sqlite_autoincrement=True,
    )
    step.create_index("ix_model_instances_model_id", "model_instances", ["model_id"])
    step.create_table(
        "model_usages",
        sa.Column("id", BigId, autoincrement=True, nullable=False),
        sa.Column("version", Count, nullable=False),
        sa.Column("created_at", Utc(), nullable=True),
        sa.Column("updated_at", Utc(), nullable=True),
        sa.Column("date", sa.Date(), nullable=False),
        sa.Column("user_id", Count, nullable=False),
        sa.Column("api_key_id", Count, nullable=False),
        sa.Column("model_id", Count, nullable=False),
        sa.Column("operation", ShortText, nullable=False),
        sa.Column("username", LongText, nullable=False),
        sa.Column("model_name", LongText, nullable=False),
        sa.Column("prompt_token_count", Count, nullable=False),
        sa.Column("completion_token_count", Count, nullable=False),
        sa.Column("request_count", Count, nullable=False),
        sa.Column("failed_count", Count, nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_model_usages"),
        sa.UniqueConstraint(
            "date",
            "user_id",
            "api_key_id",
            "model_id",
            "operation",
            name="uq_model_usages_date_user_id_api_key_id_model_id_operation",
        ),
        sqlite_autoincrement=True,
    )
    step.create_table(
        "models",
        sa.Column("id", BigId, autoincrement=True, nullable=False),
        sa.Column("version", Count, nullable=False),
        sa.Column("created_at", Utc(), nullable=True),
        sa.Column("updated_at", Utc(), nullable=True),
        sa.Column("name", Name, nullable=False),
        sa.Column("source", LongText, nullable=False),
        sa.Column("description", LongText, nullable=True),
        sa.Column("meta", LongText, nullable=False),
        sa.Column("replicas", Count, nullable=False),
        sa.Column("ready_replicas", Count, nullable=False),
        sa.Column("categories", LongText, nullable=False),
        sa.Column("placement_strategy", ShortText, nullable=False),
        sa.Column("cpu_offloading", Flag, nullable=True),
        sa.Column("distributed_inference_across_workers", Flag, nullable=True),
        sa.Column("worker_selector", LongText, nullable=False),
        sa.Column("gpu_selector", LongText, nullable=True),
        sa.Column("backend", LongText, nullable=True),
        sa.Column("backend_version", LongText, nullable=True),
        sa.Column("backend_parameters", LongText, nullable=False),
        sa.Column("command", LongText, nullable=True),
        sa.Column("health_path", LongText, nullable=True),
        sa.Column("env", LongText, nullable=False),
        sa.Column("restart_on_error", Flag, nullable=False),
        sa.Column("distributable", Flag, nullable=False),
        sa.Column("generation", Count, nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_models"),
        sa.UniqueConstraint("name", name="uq_models_name"),
        sqlite_autoincrement=True,
    )
    step.create_table(
        "sessions",
        sa.Column("id", BigId, autoincrement=True, nullable=False),
        sa.Column("version", Count, nullable=False),
        sa.Column("created_at", Utc(), nullable=True),
        sa.Column("updated_at", Utc(), nullable=True),
        sa.Column("user_id", Count, nullable=False),
        sa.Column("token_hash", Name, nullable=False),
        sa.Column("expires_at", Utc(), nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_sessions"),
        sa.UniqueConstraint("token_hash", name="uq_sessions_token_hash"),
        sqlite_autoincrement=True,
    )
    step.create_table(
        "users",
        sa.Column("id", BigId, autoincrement=True, nullable=False),
        sa.Column("version", Count, nullable=False),
        sa.Column("created_at", Utc(), nullable=True),
        sa.Column("updated_at", Utc(), nullable=True),
        sa.Column("username", Name, nullable=False),
        sa.Column("is_admin", Flag, nullable=False),
        sa.Column("is_active", Flag, nullable=False),
        sa.Column("full_name", LongText, nullable=True),
        sa.Column("avatar_url", LongText, nullable=True),
        sa.Column("source", ShortText, nullable=False),
        sa.Column("require_password_change", Flag, nullable=False),
        sa.Column("hashed_password", LongText, nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_users"),
        sa.UniqueConstraint("username", name="uq_users_username"),
        sqlite_autoincrement=True,
    )
    step.create_table(
        "workers",
        sa.Column("id", BigId, autoincrement=True, nullable=False),
        sa.Column("version", Count, nullable=False),
        sa.Column("created_at", Utc(), nullable=True),
        sa.Column("updated_at", Utc(), nullable=True),
        sa.Column("name", Name, nullable=False),
        sa.Column("worker_uuid", Name, nullable=False),
        sa.Column("hostname", LongText, nullable=False),
        sa.Column("ip", LongText, nullable=False),
        sa.Column("port", Count, nullable=False),
        sa.Column("metrics_port", Count, nullable=True),
        sa.Column("labels", LongText, nullable=False),
        sa.Column("system_reserved", LongText, nullable=False),
        sa.Column("status", LongText, nullable=False),
        sa.Column("condition", LongText, nullable=False),
        sa.Column("heartbeat_time", Utc(), nullable=True),
        sa.Column("credential_hash", LongText, nullable=False),
        sa.Column("cordoned", Flag, nullable=False),
        sa.Column("version_running", LongText, nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_workers"),
        sa.UniqueConstraint("name", name="uq_workers_name"),
        sa.UniqueConstraint("worker_uuid", name="uq_workers_worker_uuid"),
        sqlite_autoincrement=True,
    )


def downgrade() -> None:
    step.drop_table("workers")
    step.drop_table("users")
    step.drop_table("sessions")
    step.drop_table("models")
    step.drop_table("model_usages")
    step.drop_index("ix_model_instances_model_id", "model_instances")
    step.drop_table("model_instances")
    step.drop_table("model_files")
    step.drop_table("changes")
    step.drop_table("api_keys")
