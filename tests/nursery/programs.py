"""Small real programs for the tests, and ways to see whether they live."""

from __future__ import annotations

import sys
import textwrap
from pathlib import Path

import trio

PYTHON = [sys.executable, "-I", "-u", "-c"]
ENV = {"PATH": "/usr/bin:/bin"}

STUBBORN_GRANDCHILD = textwrap.dedent("""
    import signal, subprocess, sys, time
    child = subprocess.Popen([sys.executable, "-I", "-u", "-c",
        "import signal, time; signal.signal(15, signal.SIG_IGN); print('deaf', flush=True); time.sleep(600)"])
    print("child", child.pid)
    {then}
""")

HTTP_ENGINE = textwrap.dedent("""
    import http.server, os
    class Answer(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            body = str(os.getpid()).encode()
            self.send_response(200)
            self.send_header("content-length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)
    server = http.server.HTTPServer(("127.0.0.1", 0), Answer)
    print("port", server.server_port, flush=True)
    server.serve_forever()
""")


def _lines_of(log: Path) -> list[str]:
    return log.read_text("utf-8", "replace").splitlines(keepends=True) if log.exists() else []


async def line_of(log: Path, word: str) -> str:
    """The first whole line of ``log`` that begins with ``word``, once it is there."""
    while True:
        for line in _lines_of(log):
            if line.startswith(word) and line.endswith("\n"):
                return line.strip()
        await trio.sleep(0.02)


def is_running(pid: int) -> bool:
    """Whether ``pid`` is a living process; one that only waits to be reaped is not."""
    try:
        text = Path(f"/proc/{pid}/stat").read_text("utf-8", "replace")
    except OSError:
        return False
    return text.rpartition(")")[2].split()[0] not in "ZX"


async def until_gone(pid: int) -> None:
    while is_running(pid):  # noqa: ASYNC110  nobody tells us of a process that is not ours
        await trio.sleep(0.02)
