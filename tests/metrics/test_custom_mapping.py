"""A mapping put over the API is what workers show, from their next look at it on and without a restart."""

from __future__ import annotations

import sys
import urllib.request
from pathlib import Path
from typing import Any

from tests.daemon import WITHIN, Daemon, daemon
from tests.metrics.page import Series, series, value

OWN: dict[str, Any] = {
    "gpustack_metrics": {"gpustack:said": {"type": "Counter", "description": "Tokens it said."}},
    "runtime_mapping": {"custom": {"*": {"llamacpp:tokens_predicted": "gpustack:said"}}},
}


def shown(one: Daemon) -> Series:
    with urllib.request.urlopen(f"{one.exporter('worker')}/metrics", timeout=WITHIN) as answer:
        return series(answer.read())


def test_workers_show_engines_as_the_administrator_wants_it(tmp_path: Path) -> None:
    with daemon(tmp_path / "data") as one:
        assert one.call("POST", "/v1/metrics/config", OWN) == (200, {"status": "ok"})
        assert one.call("GET", "/v1/metrics/config")[1] == OWN
        status, model = one.call(
            "POST",
            "/v1/models",
            {
                "name": "fake",
                "source": "local_path",
                "local_path": str(tmp_path),
                "backend": "custom",
                "command": f"{sys.executable} -m tests.fakes.engine --port {{port}} --name {{served_name}}",
                "env": {"PYTHONPATH": str(Path(__file__).resolve().parent.parent.parent)},
                "cpu_offloading": True,
            },
        )
        assert status == 200, model
        one.running("fake")
        one.call("POST", "/v1/chat/completions", {"model": "fake", "messages": []})
        found = one.until(lambda: _with(shown(one), "gpustack:said_total"), "the metric of our own")
        assert (value(found, "gpustack:said_total", runtime="custom", model_name="fake") or 0) > 0
        assert value(found, "gpustack:generation_tokens_total") is None
        assert value(found, "gpustack:worker_engine_metrics_up") == 1

        assert one.call("POST", "/v1/metrics/config", {})[0] == 200
        found = one.until(lambda: _with(shown(one), "gpustack:generation_tokens_total"), "the default again")
        assert value(found, "gpustack:said_total") is None


def _with(found: Series, name: str) -> Series | None:
    return found if any(named == name for named, _ in found) else None
