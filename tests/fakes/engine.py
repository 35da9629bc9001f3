"""A programmable stand-in for an inference engine: it speaks OpenAI's protocol and fails on command.

    python -m tests.fakes.engine --port 0 --name one --reply "I am one." --load-seconds 2

It prints ``listening on http://127.0.0.1:PORT`` once connections are accepted. ``POST /_control`` with a JSON
object changes any field of `Script` while it runs, or with ``{"crash": 3}`` ends it with that exit code;
``GET /_control`` tells what it saw; ``GET /_control?aborted=1`` waits until that many were seen.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import os
import select
import signal
import socket
import struct
import sys
import threading
import time
import urllib.parse
from collections.abc import Iterator
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

LONGEST_WAIT = 30.0


@dataclass
class Script:
    """How the engine behaves from now on."""

    name: str = "fake"
    reply: str = "Hello from the fake engine."
    load_seconds: float = 0.0  # /health answers 503 that long after the start
    slow_token: float = 0.0  # seconds before each token
    latency: float = 0.0  # seconds before the response's head
    health_status: int = 200
    hang: bool = False  # read requests and never answer, health included
    refuse_next: int = 0  # answer 503 that many times
    reset_next: int = 0  # close that many connections without a byte
    fail_after_tokens: int | None = None  # reset a stream after so many tokens
    repeat: int = 1  # say the reply that often
    closed: bool = False  # answer nothing but health to who does not know GPUSTACK_ENGINE_API_KEY


@dataclass
class Seen:
    """What happened so far. ``aborted`` counts requests whose client left before the end."""

    requests: int = 0
    finished: int = 0
    aborted: int = 0
    failed: int = 0
    health: int = 0
    active: int = 0
    most_active: int = 0
    tokens: int = 0
    last: dict[str, Any] | None = None


class ClientGone(Exception):
    """The other side closed its connection."""


class FailedAsTold(Exception):
    """We closed the connection in the middle of an answer."""


class Engine(ThreadingHTTPServer):
    """One fake engine; ``script`` may be changed and ``seen`` read from other threads."""

    daemon_threads = True
    request_queue_size = 1024

    def __init__(self, port: int, script: Script) -> None:
        super().__init__(("127.0.0.1", port), Handler)
        self.script = script
        self.seen = Seen()
        self.changed = threading.Condition()
        self.started = time.monotonic()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"

    @property
    def loading(self) -> bool:
        return time.monotonic() < self.started + self.script.load_seconds

    def count(self, **steps: int) -> None:
        with self.changed:
            for name, step in steps.items():
                setattr(self.seen, name, getattr(self.seen, name) + step)
            self.seen.most_active = max(self.seen.most_active, self.seen.active)
            self.changed.notify_all()

    def take(self, name: str) -> bool:
        """Use up one of ``refuse_next`` or ``reset_next``; False when none is left."""
        with self.changed:
            left = getattr(self.script, name)
            setattr(self.script, name, max(0, left - 1))
            return bool(left)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Clients that leave are part of the play; everything else is shown as usual."""
        if not isinstance(sys.exc_info()[1], ConnectionError):
            super().handle_error(request, client_address)


class Handler(BaseHTTPRequestHandler):
    """Answers one connection."""

    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    server: Engine

    def log_message(self, format: str, *args: Any) -> None:
        print(format % args, file=sys.stderr, flush=True)

    # --- what is asked -------------------------------------------------------------------------------------

    def do_GET(self) -> None:
        self.body = b""
        path, _, query = self.path.partition("?")
        if path == "/_control":
            self._tell(query)
        elif path == "/health":
            self._health()
        elif self._plays_dead() or self._shuts_out():
            return
        elif path == "/metrics":
            self._metrics()
        elif path == "/v1/models":
            self._json(200, {"object": "list", "data": [{"id": self.server.script.name, "object": "model"}]})
        else:
            self._error(404, f"no such path: {path}")

    def do_POST(self) -> None:
        self.body = self._read_body()
        path = self.path.partition("?")[0]
        if path == "/_control":
            self._obey()
            return
        if self._plays_dead() or self._shuts_out():
            return
        answers = {
            "/v1/chat/completions": self._chat,
            "/v1/completions": self._complete,
            "/v1/responses": self._respond,
            "/v1/messages": self._message,
            "/v1/messages/count_tokens": self._count_tokens,
            "/v1/embeddings": self._embed,
            "/v1/rerank": self._rerank,
            "/rerank": self._rerank_texts,
            "/v1/images/generations": self._draw,
            "/v1/images/edits": self._draw,
            "/v1/audio/speech": self._speak,
            "/v1/audio/transcriptions": self._write_down,
            "/v1/audio/translations": self._write_down,
        }
        if path not in answers:
            self._error(404, f"no such path: {path}")
            return
        try:
            form = self.headers.get("Content-Type", "").startswith("multipart/")
            asked = {"form": self.body.decode("latin-1")} if form else json.loads(self.body)
        except ValueError:
            self._error(400, "the body is not JSON")
            return
        self.server.seen.last = {"path": self.path, "headers": dict(self.headers), "body": asked}
        self.server.count(requests=1, active=1)
        try:
            self._pause(self.server.script.latency)
            if self.server.loading:
                self._error(503, "Loading model")
            else:
                answers[path](asked)
        except (ClientGone, ConnectionError):
            self.close_connection = True
            self.server.count(aborted=1, active=-1)
        except FailedAsTold:
            self.server.count(failed=1, active=-1)
        else:
            self.server.count(finished=1, active=-1)

    # --- control -------------------------------------------------------------------------------------------

    def _tell(self, query: str) -> None:
        wanted = {name: int(value) for name, value in urllib.parse.parse_qsl(query)}
        with self.server.changed:
            reached = self.server.changed.wait_for(
                lambda: all(getattr(self.server.seen, name) >= least for name, least in wanted.items()),
                LONGEST_WAIT,
            )
            told = {**dataclasses.asdict(self.server.seen), "script": dataclasses.asdict(self.server.script)}
        self._json(200 if reached else 504, told)

    def _obey(self) -> None:
        orders = json.loads(self.body)
        crash = orders.pop("crash", None)
        unknown = orders.keys() - {field.name for field in dataclasses.fields(Script)}
        if unknown:
            self._error(400, f"unknown orders: {', '.join(sorted(unknown))}")
            return
        with self.server.changed:
            for name, value in orders.items():
                setattr(self.server.script, name, value)
        self._json(200, dataclasses.asdict(self.server.script))
        if crash is not None:
            os._exit(int(crash))

    # --- health and metrics --------------------------------------------------------------------------------

    def _health(self) -> None:
        self.server.count(health=1)
        if self.server.script.hang:
            self._hang()
        elif self.server.loading:
            self._error(503, "Loading model")
        else:
            self._json(self.server.script.health_status, {"status": "ok"})

    def _metrics(self) -> None:
        seen = self.server.seen
        text = (
            "# TYPE llamacpp:requests_processing gauge\n"
            f"llamacpp:requests_processing {seen.active}\n"
            "# TYPE llamacpp:tokens_predicted_total counter\n"
            f"llamacpp:tokens_predicted_total {seen.tokens}\n"
        )
        self._send(200, "text/plain; version=0.0.4", text.encode())

    # --- inference -----------------------------------------------------------------------------------------

    def _chat(self, asked: dict[str, Any]) -> None:
        prompt = " ".join(str(message.get("content", "")) for message in asked.get("messages", []))
        self._generate(asked, prompt, "chat.completion", chat=True)

    def _complete(self, asked: dict[str, Any]) -> None:
        self._generate(asked, str(asked.get("prompt", "")), "text_completion", chat=False)

    def _respond(self, asked: dict[str, Any]) -> None:
        said = [{"type": "output_text", "text": self.server.script.reply}]
        used = {"input_tokens": 5, "output_tokens": 3, "total_tokens": 8}
        self._json(
            200, {"object": "response", "output": [{"type": "message", "content": said}], "usage": used}
        )

    def _message(self, asked: dict[str, Any]) -> None:
        said = [{"type": "text", "text": self.server.script.reply}]
        used = {"input_tokens": 1, "cache_read_input_tokens": 4, "output_tokens": 3}
        self._json(200, {"type": "message", "role": "assistant", "content": said, "usage": used})

    def _count_tokens(self, asked: dict[str, Any]) -> None:
        self._json(200, {"input_tokens": 5})

    def _embed(self, asked: dict[str, Any]) -> None:
        texts = asked.get("input", [])
        texts = [texts] if isinstance(texts, str) else texts
        vectors = [[float(len(str(text))), 1.0, 0.0] for text in texts]
        used = sum(len(str(text).split()) for text in texts)
        self._json(
            200,
            {
                "object": "list",
                "model": asked.get("model", self.server.script.name),
                "data": [{"object": "embedding", "index": i, "embedding": v} for i, v in enumerate(vectors)],
                "usage": {"prompt_tokens": used, "total_tokens": used},
            },
        )

    def _rerank(self, asked: dict[str, Any]) -> None:
        back = asked.get("return_documents", True)
        texts = [one["text"] if isinstance(one, dict) else one for one in asked.get("documents", [])]
        found = [
            {
                "index": index,
                "relevance_score": 1.0 / (index + 1),
                **({"document": {"text": one}} if back else {}),
            }
            for index, one in enumerate(texts)
        ]
        self._json(200, {"results": found, "usage": {"prompt_tokens": 7, "total_tokens": 7}})

    def _rerank_texts(self, asked: dict[str, Any]) -> None:
        """As Text Embeddings Inference does, the last text first."""
        found = [
            {"index": index, "score": float(index), **({"text": text} if asked["return_text"] else {})}
            for index, text in enumerate(asked["texts"])
        ]
        self._send(200, "application/json", json.dumps(found).encode(), {"x-compute-tokens": "9"})

    def _draw(self, asked: dict[str, Any]) -> None:
        self._json(200, {"created": int(time.time()), "data": [{"b64_json": "iVBORw0KGgo="}]})

    def _speak(self, asked: dict[str, Any]) -> None:
        self._send(200, "audio/wav", b"RIFF" + bytes(range(256)))

    def _write_down(self, asked: dict[str, Any]) -> None:
        self._json(200, {"text": self.server.script.reply})

    def _generate(self, asked: dict[str, Any], prompt: str, kind: str, *, chat: bool) -> None:
        words = self._words(asked)
        common = {
            "id": f"{kind}-{self.server.seen.requests}",
            "created": int(time.time()),
            "model": asked.get("model", self.server.script.name),
        }
        usage = {
            "prompt_tokens": len(prompt.split()),
            "completion_tokens": len(words),
            "total_tokens": len(prompt.split()) + len(words),
        }
        if not asked.get("stream"):
            text = "".join(self._spoken(words))
            said: dict[str, Any] = (
                {"message": {"role": "assistant", "content": text}} if chat else {"text": text}
            )
            choice = {"index": 0, "finish_reason": "stop", **said}
            self._json(200, {**common, "object": kind, "choices": [choice], "usage": usage})
            return
        common["object"] = f"{kind}.chunk" if chat else kind
        self._open_stream()
        for word in self._spoken(words):
            said = {"delta": {"content": word}} if chat else {"text": word}
            self._event({**common, "choices": [{"index": 0, "finish_reason": None, **said}]})
        last: dict[str, Any] = {"delta": {}} if chat else {"text": ""}
        self._event({**common, "choices": [{"index": 0, "finish_reason": "stop", **last}]})
        if (asked.get("stream_options") or {}).get("include_usage"):
            self._event({**common, "choices": [], "usage": usage})
        self._chunk(b"data: [DONE]\n\n")
        self._chunk(b"")

    def _words(self, asked: dict[str, Any]) -> list[str]:
        said = self.server.script.reply.split(" ")
        words = [said[0], *(f" {word}" for word in said[1:])] * self.server.script.repeat
        limit = asked.get("max_completion_tokens") or asked.get("max_tokens")
        return words[:limit] if limit else words

    def _spoken(self, words: list[str]) -> Iterator[str]:
        for spoken, word in enumerate(words):
            if self.server.script.fail_after_tokens == spoken:
                self._reset()
                raise FailedAsTold
            self._pause(self.server.script.slow_token)
            self.server.count(tokens=1)
            yield word

    # --- playing dead --------------------------------------------------------------------------------------

    def _plays_dead(self) -> bool:
        if self.server.take("reset_next"):
            self._reset()
            return True
        if self.server.script.hang:
            self.server.count(requests=1)
            self._hang()
            return True
        if self.server.take("refuse_next"):
            self.server.count(requests=1)
            self._error(503, "busy, as told")
            return True
        return False

    def _shuts_out(self) -> bool:
        given = self.headers.get_all("Authorization") or []
        known = given == [f"Bearer {os.environ.get('GPUSTACK_ENGINE_API_KEY')}"]
        if self.server.script.closed and not known:
            self._error(401, "unauthorized: Invalid API Key")
            return True
        return False

    def _hang(self) -> None:
        """Keep the connection until the client leaves or we are told to go on."""
        self.close_connection = True
        try:
            while self.server.script.hang:
                self._pause(0.05)
        except (ClientGone, ConnectionError):
            self.server.count(aborted=1)

    def _reset(self) -> None:
        """End the connection with RST, as a crashed process does."""
        self.close_connection = True
        self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        os.close(self.connection.detach())  # close() would wait for the reader and the writer made of it

    def _pause(self, seconds: float) -> None:
        """Wait, but notice at once when the client leaves; raises ClientGone."""
        readable, _, _ = select.select([self.connection], [], [], seconds)
        if readable and not self.connection.recv(1, socket.MSG_PEEK):
            raise ClientGone
        if readable and seconds:
            time.sleep(seconds)  # a pipelined request lies there: nothing more to be told by the socket

    # --- writing -------------------------------------------------------------------------------------------

    def _read_body(self) -> bytes:
        if "chunked" not in self.headers.get("Transfer-Encoding", ""):
            return self.rfile.read(int(self.headers.get("Content-Length", 0)))
        body = b""
        while size := int(self.rfile.readline(), 16):
            body += self.rfile.read(size)
            self.rfile.readline()
        self.rfile.readline()
        return body

    def _send(self, status: int, kind: str, body: bytes, more: dict[str, str] | None = None) -> None:
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        self.send_header("X-Fake-Engine", self.server.script.name)
        for name, value in (more or {}).items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)

    def _json(self, status: int, value: dict[str, Any]) -> None:
        self._send(status, "application/json", json.dumps(value).encode())

    def _error(self, status: int, message: str) -> None:
        self._json(status, {"error": {"code": status, "message": message, "type": "fake_error"}})

    def _open_stream(self) -> None:
        self.send_response(200)
        self.send_header("Content-Type", "text/event-stream")
        self.send_header("Transfer-Encoding", "chunked")
        self.send_header("X-Fake-Engine", self.server.script.name)
        self.end_headers()

    def _event(self, value: dict[str, Any]) -> None:
        self._chunk(b"data: " + json.dumps(value).encode() + b"\n\n")

    def _chunk(self, data: bytes) -> None:
        self.wfile.write(b"%x\r\n%s\r\n" % (len(data), data))


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.fakes.engine", description=__doc__)
    parser.add_argument("--port", type=int, default=0)
    for field in dataclasses.fields(Script):
        flag = "--" + field.name.replace("_", "-")
        if isinstance(field.default, bool):
            parser.add_argument(flag, action="store_true")
        else:
            kind = int if field.default is None else type(field.default)
            parser.add_argument(flag, type=kind, default=field.default)
    parser.add_argument("--exit-after", type=float, metavar="S", help="end with --exit-code after S seconds")
    parser.add_argument("--exit-code", type=int, default=1)
    parser.add_argument("--ignore-term", action="store_true", help="let SIGTERM pass unheard")
    parser.add_argument("--fail-to-start", metavar="WORDS", help="say WORDS on stderr and exit with 1")
    options = vars(parser.parse_args())

    if options["fail_to_start"]:
        sys.exit(options["fail_to_start"])
    signal.signal(signal.SIGTERM, signal.SIG_IGN if options["ignore_term"] else lambda *_: os._exit(0))
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    if options["exit_after"] is not None:
        timer = threading.Timer(options["exit_after"], os._exit, [options["exit_code"]])
        timer.daemon = True
        timer.start()
    names = {field.name for field in dataclasses.fields(Script)}
    engine = Engine(options["port"], Script(**{name: options[name] for name in names}))
    print(f"listening on {engine.url}", flush=True)
    engine.serve_forever(poll_interval=0.1)


if __name__ == "__main__":
    main()
