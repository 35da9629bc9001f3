#!/usr/bin/env bash
# Asking a sleeping llama.cpp whether it has work loads its model.
#
# Surprise:  with `--sleep-idle-seconds` the server lets its model go when nobody asks, and loads it again with the next
#            request. /health, /props, /v1/models and /metrics are answered without waking it. /slots, which only reads what
#            its slots do (nothing), loads the whole model first. So does /tokenize, which needs the vocabulary alone.
# Bites:     whatever looks at /slots from time to time (dashboards, load balancers that count free slots, programs that
#            want to stop the server when it has no work): the server never sleeps, or loads tens of gigabytes in order to end.
# Versions:  xllamacpp 2026.10.11549 (llama.cpp b11549).
# We:        ask /props for `is_sleeping` before /slots: gpustack/launchers/llama_cpp.py.
source "$(dirname "$0")/fresh.sh"
fresh xllamacpp==2026.10.11549 gguf==0.19.0 numpy==2.4.6
try <<'PYTHON'
import json
import time

import report
from llama_server import ask, start

report.versions("xllamacpp", "gguf")
server = start(n_ctx=512, sleep_idle_seconds=1, endpoint_slots=True, endpoint_metrics=True)


def is_sleeping():
    return json.loads(ask(server, "/props")[1])["is_sleeping"]


def sleeps_after(path, body=None):
    """Whether it still sleeps when it has answered; a sleeper is waited for first."""
    deadline = time.monotonic() + 30
    while not is_sleeping():
        assert time.monotonic() < deadline, "it does not go to sleep"
        time.sleep(0.1)
    status, text = ask(server, path, body)
    assert status == 200, text
    return "sleeping" if is_sleeping() else "awake"


for path, body, recorded in (
    ("/health", None, "sleeping"),
    ("/props", None, "sleeping"),
    ("/v1/models", None, "sleeping"),
    ("/metrics", None, "sleeping"),
    ("/slots", None, "awake"),
    ("/tokenize", {"content": "abc"}, "awake"),
):
    report.observe(
        f"a sleeping server after {'POST' if body else 'GET'} {path}",
        expected="sleeping",
        recorded=recorded,
        seen=sleeps_after(path, body),
    )
del server
report.conclude()
PYTHON
