"""A model whose answers do not end by themselves, and an answer of it under way."""

from __future__ import annotations

import json
import sys
import urllib.request
from collections.abc import Mapping
from http.client import HTTPResponse
from typing import Any, cast

from tests.child import ROOT
from tests.daemon import WITHIN


def endless_model(*flags: str) -> dict[str, Any]:
    """To be posted to /v1/models as ``endless``; ``flags`` are of the fake engine."""
    engine = f"{sys.executable} -m tests.fakes.engine --port {{port}} --slow-token 0.1 --repeat 10000"
    return {
        "name": "endless",
        "source": "local_path",
        "local_path": "/nonexistent",
        "backend": "custom",
        "command": " ".join([engine, *flags]),
        "health_path": "/health",
        "env": {"PYTHONPATH": str(ROOT)},
    }


def stream_of(url: str, headers: Mapping[str, str] | None = None) -> HTTPResponse:
    """An answer that is being told; close it."""
    body = {"model": "endless", "stream": True, "messages": [{"role": "user", "content": "Go on."}]}
    request = urllib.request.Request(
        f"{url}/v1/chat/completions",
        data=json.dumps(body).encode(),
        headers={"content-type": "application/json", **(headers or {})},
    )
    return cast(HTTPResponse, urllib.request.urlopen(request, timeout=WITHIN))
