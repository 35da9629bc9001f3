#!/usr/bin/env bash
# Agents for programming fill a window of 8192 tokens, or nearly, before their user's first word is read.
#
# Surprise:  asked with the one word "Hi", in an empty folder, Codex, OpenCode and Qwen Code send 30,000 to 67,000 characters of
#            instructions and descriptions of tools, 6,900 to 14,500 tokens of a large vocabulary (o200k). None asks the server
#            before how long a prompt may be.
# Bites:     whoever points one at a model of their own with the usual window of 4096 or 8192 tokens: a word or two end in an
#            error about the length of a prompt that they have not written.
# Versions:  @openai/codex 0.171.0, opencode-ai 1.18.33, @qwen-code/qwen-code 0.15.10; Node.js 20 or later is needed.
# We:        know what each sends (prompt_tokens in gpustack/cli/clients/*.yaml), and say before a launch that the window of the
#            model is too short, and which parameter makes it longer: gpustack/cli/commands/launch.py.
source "$(dirname "$0")/fresh.sh"
fresh
npm install --silent --no-audit --no-fund --prefix agents @openai/codex@0.171.0 opencode-ai@1.18.33 \
  @qwen-code/qwen-code@0.15.10 > npm.log 2>&1 || { tail -n 5 npm.log >&2; exit 2; }
try <<'PYTHON'
import json
import os
import subprocess
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import report

sent = []


class Handler(BaseHTTPRequestHandler):
    """Measures what it is sent, and refuses it as a server does whose window is full."""

    def do_POST(self):
        body = self.rfile.read(int(self.headers["Content-Length"]))
        sent.append(len(body))
        self.answer(400, {"error": {"message": "too long", "type": "invalid_request_error", "code": 400}})

    def do_GET(self):
        asked.append(self.path)
        self.answer(200, {"object": "list", "data": [{"id": "small", "object": "model"}]})

    def answer(self, status, document):
        text = json.dumps(document).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(text)))
        self.end_headers()
        self.wfile.write(text)

    def log_message(self, *_):
        pass


asked = []
server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
threading.Thread(target=server.serve_forever, daemon=True).start()
url = f"http://127.0.0.1:{server.server_port}/v1"
home, programs = Path("home").absolute(), Path("agents/node_modules/.bin").absolute()
(home / "empty").mkdir(parents=True)
provider = {
    "npm": "@ai-sdk/openai-compatible",
    "options": {"baseURL": url, "apiKey": "none"},
    "models": {"small": {"name": "small"}},
}
codex = {"model_provider": "here", "model_providers.here.name": "here", "model_providers.here.base_url": url}
codex |= {"model_providers.here.wire_api": "responses", "model_providers.here.env_key": "NO_KEY"}
settings = [part for name, value in codex.items() for part in ("-c", f"{name}={json.dumps(value)}")]
AGENTS = {
    "Codex": (["codex", "--model", "small", *settings, "exec", "--skip-git-repo-check", "Hi"], {"NO_KEY": "none"}),
    "OpenCode": (
        ["opencode", "run", "Hi"],
        {"OPENCODE_CONFIG_CONTENT": json.dumps({"provider": {"here": provider}, "model": "here/small"})},
    ),
    "Qwen Code": (
        ["qwen", "-p", "Hi"],
        {"OPENAI_BASE_URL": url, "OPENAI_API_KEY": "none", "OPENAI_MODEL": "small"},
    ),
}
path = os.pathsep.join([str(programs), os.environ["PATH"]])
report.versions()
for name, (command, given) in AGENTS.items():
    sent.clear()
    environment = {"HOME": str(home), "PATH": path, "NO_COLOR": "1", **given}
    try:
        subprocess.run(command, env=environment, cwd=home / "empty", stdin=subprocess.DEVNULL, timeout=80,
                       stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    except subprocess.TimeoutExpired:
        pass  # it tries again for longer
    largest = max(sent, default=0)
    print(f"\n{name}: the largest of {len(sent)} requests has {largest} characters")
    report.observe(f"{name} asks with one word", expected="less than 20,000 characters", recorded="more",
                   seen="more" if largest >= 20_000 else "less")
report.observe("what they asked the server about its model", expected=["/v1/models"], recorded=[], seen=asked)
report.conclude()
PYTHON
