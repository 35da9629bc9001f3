"""What a daemon stores before another one takes its records over."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import attrs
import pytest
import trio

from gpustack.cli.daemon.accounting import Accounting
from gpustack.cli.daemon.handover import StoppableService
from gpustack.cli.daemon.server_role import ServerRole
from gpustack.config.options import Options
from gpustack.domain.access import ApiKey
from gpustack.server.key_use import KeyUseLedger
from tests.fresh_store import open_fresh

NOW = datetime(2026, 1, 2, tzinfo=UTC)
NOBODY: Any = None


async def test_the_last_use_of_keys_is_stored_before_the_store_is_given_up(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    store = await open_fresh(tmp_path, lambda: NOW)
    held, use = StoppableService(store), KeyUseLedger(store, lambda: NOW)
    accounting = Accounting.of(Options(data_dir=tmp_path), store, lambda: (1, 0))
    role = ServerRole(NOBODY, NOBODY, store=held, accounting=attrs.evolve(accounting, key_use=use))
    async with trio.open_nursery() as nursery:
        await nursery.start(held.run)
        key = await store.write(
            lambda tx: tx.insert(ApiKey(name="k", user_id=1, access_key="k", secret_hash="x"))
        )
        use.note(key.id)
        await role.give_up()
        assert store.snapshot.api_keys[key.id].last_used_at == NOW
        use.note(key.id)
        await use.flush()
        nursery.cancel_scope.cancel()
    assert "waits for the database" not in caplog.text
