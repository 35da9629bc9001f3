"""Runs migrations inside the transaction of the connection it is given."""

from __future__ import annotations

from alembic import context

from gpustack.store.table import metadata

context.configure(
    connection=context.config.attributes["connection"],
    target_metadata=metadata,
    render_as_batch=True,  # SQLite alters a table by making it anew
    compare_type=True,
    transaction_per_migration=False,
)
context.run_migrations()
