#!/usr/bin/env bash
# `hf download` is done with a pattern that fits no file, and names a folder that is not there.
#
# Surprise:  a file that a repository lacks ends `hf download` with code 1. A pattern (`--include`) that fits none of its files,
#            for instance because case counts in it, ends it with code 0, "Downloaded", and the path of a folder that does
#            not exist; snapshot_download() returns such a path. A warning on stderr is all that tells.
# Bites:     steps of image builds and init containers that fetch one quantisation by a pattern: they succeed without a
#            model, and what fails is the engine, later, with a path that nobody typed.
# Versions:  huggingface_hub 2.4.0.
# We:        list the repository ourselves, look again without regard to case, and refuse what still fits nothing with the
#            names that there are: gpustack/artifacts/listing.py.
source "$(dirname "$0")/fresh.sh"
fresh huggingface_hub==2.4.0
try <<'PYTHON'
import json
import os
import subprocess
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import report

report.versions("huggingface_hub")
COMMIT = "0123456789abcdef0123456789abcdef01234567"
FILES = {"config.json": b"{}", "tiny-Q4_K_M.gguf": b"GGUF" * 256}


class Hub(BaseHTTPRequestHandler):
    """As much of a hub as a download asks for, with one repository."""

    protocol_version = "HTTP/1.1"

    def do_HEAD(self):
        self.do_GET()

    def do_GET(self):
        path = self.path.partition("?")[0]
        name = path.rpartition("/")[2]
        if path.startswith("/api/models/a/tiny/revision/"):
            told = {"id": "a/tiny", "sha": COMMIT, "siblings": [{"rfilename": file} for file in FILES]}
            self.answer(200, json.dumps(told).encode(), {"Content-Type": "application/json"})
        elif path.startswith("/api/models/a/tiny/tree/"):
            told = [{"type": "file", "oid": "0" * 40, "size": len(data), "path": file} for file, data in FILES.items()]
            self.answer(200, json.dumps(told).encode(), {"Content-Type": "application/json"})
        elif path.startswith("/a/tiny/resolve/") and name in FILES:
            self.answer(200, FILES[name], {"ETag": f'"{len(FILES[name]):040x}"', "X-Repo-Commit": COMMIT})
        else:
            self.answer(404, b"", {"X-Error-Code": "EntryNotFound", "X-Repo-Commit": COMMIT})

    def answer(self, status, data, headers):
        self.send_response(status)
        for header, value in {**headers, "Content-Length": str(len(data))}.items():
            self.send_header(header, value)
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(data)

    def log_message(self, *_):
        pass


hub = ThreadingHTTPServer(("127.0.0.1", 0), Hub)
threading.Thread(target=hub.serve_forever, daemon=True).start()
ENV = {
    **os.environ,
    "HF_ENDPOINT": f"http://127.0.0.1:{hub.server_port}",
    "HF_HOME": os.path.abspath("home"),
    "HF_HUB_DISABLE_PROGRESS_BARS": "1",
    "HF_HUB_DISABLE_TELEMETRY": "1",
    "HF_HUB_VERBOSITY": "warning",
    "HF_HUB_DISABLE_UPDATE_CHECK": "1",
    "NO_COLOR": "1",
}


def run(*command, **env):
    return subprocess.run(command, env={**ENV, **env}, capture_output=True, text=True, timeout=60)


def downloaded(*what):
    """The exit code, and whether there is anything at the path that it names."""
    ended = run("venv/bin/hf", "download", "a/tiny", *what, "--format", "json")
    path = json.loads(ended.stdout)["path"] if ended.returncode == 0 else None
    return ended.returncode, path is not None and os.path.exists(path)


MISSING = "*q4_k_m.gguf"
report.observe(
    "hf download of a file that is not there: code, and is there anything at the path",
    expected=(1, False), recorded=(1, False), seen=downloaded("tiny-Q8_0.gguf"),
)  # fmt: skip
report.observe(f"of --include {MISSING}", expected=(1, False), recorded=(0, False), seen=downloaded("--include", MISSING))
said = run("venv/bin/hf", "download", "a/tiny", "--include", MISSING)
first = said.stdout.partition("\n")[0].strip()
report.observe("its first word of that", expected="an error", recorded="✓ Downloaded", seen=first)
WARNING = f"No files matched allow_patterns=['{MISSING}']."
report.observe("and on stderr", expected="an error", recorded=WARNING, seen=said.stderr.strip())
called = run(
    "venv/bin/python", "-c",
    f"import os, huggingface_hub as h; print(os.path.exists(h.snapshot_download('a/tiny', allow_patterns='{MISSING}')))",
)  # fmt: skip
report.observe(
    "snapshot_download() of the same: is there a folder at its path",
    expected="True, or an error", recorded="False", seen=called.stdout.strip(),
)  # fmt: skip
report.observe("of --include *Q4_K_M.gguf", expected=(0, True), recorded=(0, True), seen=downloaded("--include", "*Q4_K_M.gguf"))
report.conclude()
PYTHON
