"""An engine that breaks HTTP in whichever way the prompt asks for: ``python hostile_engine.py PORT``."""

from __future__ import annotations

import json
import socketserver
import sys

SANE = json.dumps({"choices": [{"message": {"content": "sane"}}], "usage": {"prompt_tokens": 1}}).encode()
POISON = b"HTTP/1.1 200 OK\r\ncontent-length: 6\r\n\r\npoison"
HUGE = json.dumps({"usage": {"prompt_tokens": 2**63, "completion_tokens": 10**30}}).encode()
DEEP = b'{"usage": ' + b'{"a":' * 5000 + b"1" + b"}" * 5000 + b"}"


def whole(body: bytes, *fields: str, status: str = "200 OK") -> bytes:
    lines = [f"HTTP/1.1 {status}", *fields, f"content-length: {len(body)}", "", ""]
    return "\r\n".join(lines).encode() + body


TRICKS = {
    "garbage": b"\0\1\2 poison\r\n\r\n",
    "bare-lf": b"HTTP/1.1 200 OK\ncontent-length: 6\n\npoison",
    "two-lengths": b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\ncontent-length: 6\r\n\r\npoison",
    "both-framings": (
        b"HTTP/1.1 200 OK\r\ncontent-length: 6\r\ntransfer-encoding: chunked\r\n\r\n6\r\npoison\r\n0\r\n\r\n"
    ),
    "long-head": b"HTTP/1.1 200 OK\r\nx: " + b"a" * 100_000 + b"\r\ncontent-length: 6\r\n\r\npoison",
    "short-body": b"HTTP/1.1 200 OK\r\ncontent-length: 1000\r\n\r\nshort",
    "bad-chunk": b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\nzz\r\npoison\r\n0\r\n\r\n",
    "many-100s": b"HTTP/1.1 100 Continue\r\n\r\n" * 10_000 + whole(SANE),
    "switch": b"HTTP/1.1 101 Switching Protocols\r\nupgrade: x\r\n\r\npoison",
    "silent-close": b"",
    "huge-usage": whole(HUGE),
    "deep-usage": whole(DEEP),
    "second-answer": whole(SANE) + POISON,
    "endless-100s": b"HTTP/1.1 102 Processing\r\n\r\n" * 100,
    "many-fields": b"HTTP/1.1 200 OK\r\n" + b"a:\r\n" * 2000 + b"content-length: 6\r\n\r\npoison",
    "old-chunks": b"HTTP/1.0 200 OK\r\ntransfer-encoding: chunked\r\n\r\n6\r\npoison\r\n0\r\n\r\n",
    "nested-usage": whole(b'"usage":{' * 100_000),
    "page": whole(b"<script>alert(document.domain)</script>", "content-type: text/html"),
    "sane": whole(SANE),
}
_KEPT = frozenset({"sane", "second-answer", "huge-usage", "many-100s"})


class Handler(socketserver.StreamRequestHandler):
    def handle(self) -> None:
        while (first := self.rfile.readline()).strip():
            length = 0
            while (line := self.rfile.readline()).strip():
                name, _, value = line.decode("latin-1").partition(":")
                length = int(value) if name.lower() == "content-length" else length
            body = self.rfile.read(length)
            if not self.answer(first, body):
                return

    def answer(self, first: bytes, body: bytes) -> bool:
        if first.startswith(b"GET"):
            self.wfile.write(whole(b"{}"))
            return True
        prompt = str(json.loads(body)["messages"][0]["content"])
        if prompt.startswith("header "):
            self.wfile.write(whole(SANE, prompt.removeprefix("header ")))
            return True
        self.wfile.write(TRICKS[prompt])
        return prompt in _KEPT


class Engine(socketserver.ThreadingTCPServer):
    allow_reuse_address = True
    daemon_threads = True


if __name__ == "__main__":
    with Engine(("127.0.0.1", int(sys.argv[1])), Handler) as engine:
        engine.serve_forever()
