"""A stop takes no longer than its tiers promise, also while another program holds the database."""

from __future__ import annotations

import sqlite3
import sys
import time
from contextlib import closing
from pathlib import Path

from tests.daemon import WITHIN, daemon

ASK = {"model": "m", "max_tokens": 5, "messages": [{"role": "user", "content": "Who are you?"}]}


def test_a_stop_keeps_its_time_while_the_database_is_locked(tmp_path: Path) -> None:
    """Usage, the last use of keys, budgets and the audit trail each waited for it in turn, and then the store did."""
    engine = {
        "name": "m",
        "source": "local_path",
        "local_path": "/nonexistent",
        "backend": "custom",
        "command": f"{sys.executable} -m tests.fakes.engine --port {{port}} --reply hello",
        "health_path": "/health",
        "env": {"PYTHONPATH": str(Path(__file__).parents[2])},
    }
    data = tmp_path / "data"
    with daemon(data) as one:
        assert one.call("POST", "/v1/models", engine)[0] == 200
        one.running("m")
        status, key = one.call("POST", "/v1/api-keys", {"name": "k", "limits": {"tokens_per_day": 100_000}})
        assert status == 200, key
        bearer = {"authorization": f"Bearer {key['value']}"}
        assert one.call("POST", "/v1/chat/completions", ASK, bearer)[0] == 200  # draws from the budget
        with closing(sqlite3.connect(data / "database.db", timeout=WITHIN, isolation_level=None)) as holder:
            holder.execute("begin immediate")
            assert one.call("POST", "/v1/chat/completions", ASK, bearer)[0] == 200
            assert one.call("GET", "/v1/models", headers={"authorization": "Bearer wrong"})[0] == 401
            time.sleep(0.2)
            assert one.stop() == 0
        assert "has not stopped in time" not in one.log
        assert one.log.rstrip().endswith("Stopped")
