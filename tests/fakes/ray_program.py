"""A stand-in for ``ray start``: it notes how it was called, listens where it is told to, and fails as it is told to."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import attrs

PROGRAM = """\
import http.server, json, os, signal, socket, sys, threading, time
from pathlib import Path
here = Path(__file__).resolve().parent
if sys.argv[1:] == ["--version"]:
    print("ray, version " + (here / "version").read_text())
    sys.exit()
flags = sys.argv[1:]
named = {flag: flags[at + 1] for at, flag in enumerate(flags[:-1]) if flag.startswith("--")}
with (here / "calls").open("a") as calls:
    calls.write(json.dumps({"argv": flags, "env": dict(os.environ), "pid": os.getpid()}) + "\\n")
os.makedirs(named["--temp-dir"] + "/session_2/logs")
if (here / "fails").exists():
    print((here / "fails").read_text())
    sys.exit(1)
class Answers(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        shown = self.path.startswith("/logs") or self.path == "/"
        said = {"path": self.path, "asked_by": self.headers["authorization"], "cookie": self.headers["cookie"],
                "agent": self.headers["user-agent"], "mode": self.headers["sec-fetch-mode"]}
        page = b"<p>ray</p>" if shown else json.dumps(said).encode()
        page = b"ray_node_up 1\\n" if self.path == "/metrics" else page
        self.send_response(200)
        self.send_header("content-type", "text/html" if shown else "application/json")
        self.send_header("content-length", str(len(page)))
        self.end_headers()
        self.wfile.write(page)
    def log_message(self, *arguments):
        pass
kept = []
for flag, port in named.items():
    if flag in ("--dashboard-port", "--metrics-export-port"):
        server = http.server.ThreadingHTTPServer(("127.0.0.1", int(port)), Answers)
        threading.Thread(target=server.serve_forever, daemon=True).start()
    elif flag.endswith("port") and "worker" not in flag:
        listener = socket.socket()
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(("0.0.0.0", int(port)))
        listener.listen()
        kept.append(listener)
print("2026-01-01 00:00:00,000\\tSUCC scripts.py:1 -- Ray runtime started.", flush=True)
while not (here / "dies").exists():
    time.sleep(0.05)
(here / "dies").unlink()
print("2026-01-01 00:00:01,000\\tERR scripts.py:2 -- Some Ray subprocesses exited unexpectedly:")
print("2026-01-01 00:00:01,000\\tERR scripts.py:3 -- raylet [exit code=-9]")
print("2026-01-01 00:00:01,000\\tERR scripts.py:4 -- Remaining processes will be killed.", flush=True)
sys.exit(1)
"""


@attrs.frozen
class RayProgram:
    """A folder with a program ``ray``."""

    folder: Path

    @classmethod
    def within(cls, folder: Path, version: str = "2.60.0") -> RayProgram:
        folder.mkdir(parents=True, exist_ok=True)
        program = folder / "ray"
        program.write_text(f"#!{sys.executable} -IS\n{PROGRAM}")
        program.chmod(0o755)
        (folder / "version").write_text(version)
        return cls(folder)

    @property
    def path(self) -> str:
        return str(self.folder / "ray")

    @property
    def calls(self) -> list[dict[str, Any]]:
        """Arguments, environment and pid of each start."""
        try:
            return [json.loads(line) for line in (self.folder / "calls").read_text().splitlines()]
        except FileNotFoundError:
            return []

    def fail(self, text: str) -> None:
        """From now on it ends as soon as it is started, having written ``text``."""
        (self.folder / "fails").write_text(text)

    def mend(self) -> None:
        (self.folder / "fails").unlink()

    def die(self) -> None:
        """The one that runs ends as if its raylet had been killed."""
        (self.folder / "dies").touch()
