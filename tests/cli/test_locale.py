"""Commands where the terminal cannot print every character, or brings bytes that are none."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest

NAME = "模型-é"
ITEM = {
    "id": 1,
    "name": NAME,
    "model_name": NAME,
    "state": "error",
    "state_message": f"{NAME} cannot be read",
    "worker_name": NAME,
    "replicas": 1,
}


class _Handler(BaseHTTPRequestHandler):
    """Answers every listing with one item whose name no ASCII holds."""

    def log_message(self, *_: Any) -> None:
        pass

    def do_GET(self) -> None:
        page = {"items": [ITEM], "pagination": {"page": 1, "perPage": 100, "total": 1, "totalPage": 1}}
        body = json.dumps(page).encode()
        self.send_response(200)
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


@pytest.fixture(scope="module")
def served() -> Iterator[str]:
    with ThreadingHTTPServer(("127.0.0.1", 0), _Handler) as listener:
        listener.daemon_threads = True
        thread = threading.Thread(target=listener.serve_forever, args=(0.02,), daemon=True)
        thread.start()
        yield f"http://127.0.0.1:{listener.server_address[1]}"
        listener.shutdown()
        thread.join(10)


def ran(*argv: str, given: bytes = b"", **env: str) -> subprocess.CompletedProcess[bytes]:
    kept = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(("GPUSTACK_", "LC_", "LANG", "PYTHONIOENCODING", "PYTHONUTF8"))
    }
    return subprocess.run(
        [sys.executable, "-m", "gpustack", *argv],
        env={**kept, **env},
        input=given,
        capture_output=True,
        timeout=120,
        check=False,
    )


LOCALES = [
    {"PYTHONIOENCODING": "ascii"},
    {"PYTHONIOENCODING": "latin-1", "LC_ALL": "C"},
    {"LC_ALL": "POSIX", "PYTHONCOERCECLOCALE": "0", "PYTHONUTF8": "0"},
]


@pytest.mark.parametrize("locale", LOCALES, ids=str)
@pytest.mark.parametrize(
    "argv",
    [("ps",), ("workers",), ("ls", "-o", "json"), ("ps", "-q")],
    ids=" ".join,
)
def test_a_name_that_cannot_be_printed_is_a_replacement_and_no_traceback(
    served: str, argv: tuple[str, ...], locale: dict[str, str]
) -> None:
    done = ran(*argv, GPUSTACK_SERVER_URL=served, **locale)
    assert b"Traceback" not in done.stderr
    assert done.returncode == 0, done.stderr
    assert b"?" in done.stdout


@pytest.mark.parametrize("locale", LOCALES, ids=str)
def test_an_argument_that_is_no_text_is_answered_in_a_sentence(served: str, locale: dict[str, str]) -> None:
    odd = os.fsdecode(b"caf\xe9\xff")
    for argv in (("show", odd), ("ps", odd), (odd,), ("rm", odd), ("start", f"--worker-name={odd}")):
        done = ran(*argv, GPUSTACK_SERVER_URL=served, **locale)
        assert done.returncode in (1, 2), (argv, done.stderr)
        assert b"Traceback" not in done.stderr, done.stderr.decode(errors="replace")
