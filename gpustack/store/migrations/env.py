"""Runs migrations inside the transaction of the connection in the configuration."""

from __future__ import annotations

from alembic import context

from gpustack.store.table import metadata

context.configure(
    connection=context.config.attributes["connection"],
    target_metadata=metadata,
    render_as_batch=True,  # SQLite alters a table by creating it anew
    compare_type=True,
    transaction_per_migration=False,
)
context.run_migrations()
