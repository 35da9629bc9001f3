"""The tables of the first release."""

from __future__ import annotations

import sqlalchemy as sa

from gpustack.store.column import BigId, Count, Flag, Long, Name, Real, Utc, Word
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
        sa.Column("secret_hash", Long, nullable=False),
        sa.Column("description", Long, nullable=True),
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
        sa.Column("kind", Word, nullable=False),
        sa.Column("table_name", Word, nullable=False),
        sa.Column("record_id", Count, nullable=False),
        sa.Column("record", Long, nullable=False),
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
        sa.Column("source", Long, nullable=False),
        sa.Column("source_index", Name, nullable=False),
        sa.Column("local_dir", Name, nullable=False),
        sa.Column("cleanup_on_delete", Flag, nullable=False),
        sa.Column("size", Count, nullable=True),
        sa.Column("download_progress", Real, nullable=True),
        sa.Column("resolved_paths", Long, nullable=False),
        sa.Column("state", Word, nullable=False),
        sa.Column("state_message", Long, nullable=False),
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
        sa.Column("model_name", Long, nullable=False),
        sa.Column("source", Long, nullable=False),
        sa.Column("generation", Count, nullable=False),
        sa.Column("placement", Long, nullable=True),
        sa.Column("state", Word, nullable=False),
        sa.Column("state_message", Long, nullable=False),
        sa.Column("state_since", Utc(), nullable=True),
        sa.Column("pid", Count, nullable=True),
        sa.Column("port", Count, nullable=True),
        sa.Column("ports", Long, nullable=False),
        sa.Column("download_progress", Real, nullable=True),
        sa.Column("resolved_path", Long, nullable=True),
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
        sa.Column("operation", Word, nullable=False),
        sa.Column("username", Long, nullable=False),
        sa.Column("model_name", Long, nullable=False),
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
        sa.Column("source", Long, nullable=False),
        sa.Column("description", Long, nullable=True),
        sa.Column("meta", Long, nullable=False),
        sa.Column("replicas", Count, nullable=False),
        sa.Column("ready_replicas", Count, nullable=False),
        sa.Column("categories", Long, nullable=False),
        sa.Column("placement_strategy", Word, nullable=False),
        sa.Column("cpu_offloading", Flag, nullable=True),
        sa.Column("distributed_inference_across_workers", Flag, nullable=True),
        sa.Column("worker_selector", Long, nullable=False),
        sa.Column("gpu_selector", Long, nullable=True),
        sa.Column("backend", Long, nullable=True),
        sa.Column("backend_version", Long, nullable=True),
        sa.Column("backend_parameters", Long, nullable=False),
        sa.Column("command", Long, nullable=True),
        sa.Column("health_path", Long, nullable=True),
        sa.Column("env", Long, nullable=False),
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
        sa.Column("full_name", Long, nullable=True),
        sa.Column("avatar_url", Long, nullable=True),
        sa.Column("source", Word, nullable=False),
        sa.Column("require_password_change", Flag, nullable=False),
        sa.Column("hashed_password", Long, nullable=False),
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
        sa.Column("hostname", Long, nullable=False),
        sa.Column("ip", Long, nullable=False),
        sa.Column("port", Count, nullable=False),
        sa.Column("metrics_port", Count, nullable=True),
        sa.Column("labels", Long, nullable=False),
        sa.Column("system_reserved", Long, nullable=False),
        sa.Column("status", Long, nullable=False),
        sa.Column("condition", Long, nullable=False),
        sa.Column("heartbeat_time", Utc(), nullable=True),
        sa.Column("credential_hash", Long, nullable=False),
        sa.Column("cordoned", Flag, nullable=False),
        sa.Column("version_running", Long, nullable=False),
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
