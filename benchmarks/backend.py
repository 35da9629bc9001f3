"""An engine that costs next to nothing, so that what stands in front of it is measured: raw sockets, one epoll.

    python benchmarks/backend.py --port 9000

``POST`` with ``"stream":true`` in its body answers ``max_tokens`` events, ``seed`` of them a second (0: as fast as
they are taken), then the usage and ``[DONE]``; without it one answer of about 600 bytes. ``GET`` answers 200.
"""

from __future__ import annotations

import argparse
import heapq
import json
import re
import select
import socket
import sys
import time

TEXT = "The quick brown fox jumps over the lazy dog. " * 6
USAGE = {"prompt_tokens": 23, "completion_tokens": 61, "total_tokens": 84}
COMMON = {"id": "chatcmpl-0123456789abcdef", "created": 1760000000, "model": "bench"}
MESSAGE = {"index": 0, "finish_reason": "stop", "message": {"role": "assistant", "content": TEXT}}


def framed(body: bytes) -> bytes:
    return b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n%b" % (
        len(body),
        body,
    )


def event(document: object) -> bytes:
    data = b"data: " + json.dumps(document, separators=(",", ":")).encode() + b"\n\n"
    return b"%x\r\n%b\r\n" % (len(data), data)


def delta(number: int) -> object:
    choice = {
        "index": 0,
        "delta": {"content": f" token{number:04d}"},
        "logprobs": None,
        "finish_reason": None,
    }
    return {
        **COMMON,
        "object": "chat.completion.chunk",
        "system_fingerprint": "fp_012345",
        "choices": [choice],
    }


WHOLE = framed(
    json.dumps({**COMMON, "object": "chat.completion", "choices": [MESSAGE], "usage": USAGE}).encode()
)
HEALTH = framed(b'{"status":"ok"}')
HEAD = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n"
EVENTS = [event(delta(number)) for number in range(5000)]
LAST = event({**COMMON, "choices": [], "usage": USAGE}) + b"e\r\ndata: [DONE]\n\n\r\n0\r\n\r\n"
LENGTH = re.compile(rb"content-length: *(\d+)", re.IGNORECASE)


class Connection:
    """One client: answers request after request; a stream goes on by the clock."""

    def __init__(self, sock: socket.socket) -> None:
        self.sock = sock
        self.buffer = b""
        self.left = 0
        self.sent = 0
        self.step = 0.0

    def receive(self, timers: list[tuple[float, int]]) -> bool:
        """Answer all that has come; false when the client has left."""
        try:
            data = self.sock.recv(262144)
        except BlockingIOError:
            return True
        except OSError:
            return False
        if not data:
            return False
        self.buffer += data
        while (end := self.buffer.find(b"\r\n\r\n")) >= 0:
            found = LENGTH.search(self.buffer, 0, end)
            size = end + 4 + (int(found[1]) if found else 0)
            if len(self.buffer) < size:
                break
            request, self.buffer = self.buffer[:size], self.buffer[size:]
            self.answer(request, end, timers)
        return True

    def answer(self, request: bytes, end: int, timers: list[tuple[float, int]]) -> None:
        if request.startswith(b"GET"):
            self.send(HEALTH)
        elif b'"stream":true' not in request and b'"stream": true' not in request:
            self.send(WHOLE)
        else:
            asked = json.loads(request[end + 4 :])
            self.left, self.sent = int(asked.get("max_tokens", 100)), 0
            rate = float(asked.get("seed", 50))
            self.step = 1.0 / rate if rate else 0.0
            self.send(HEAD)
            heapq.heappush(timers, (time.monotonic(), self.sock.fileno()))

    def go_on(self, timers: list[tuple[float, int]], now: float, due: float) -> None:
        """The next event of a stream, and when the one after it is due."""
        if self.left <= 0:
            return
        self.send(EVENTS[self.sent % len(EVENTS)])
        self.sent, self.left = self.sent + 1, self.left - 1
        if self.left:
            heapq.heappush(timers, (max(due + self.step, now - 0.1), self.sock.fileno()))
        else:
            self.send(LAST)

    def send(self, data: bytes) -> None:
        """All of it; who does not take it holds up the rest, which no load here does."""
        try:
            sent = self.sock.send(data)
            while sent < len(data):
                select.select([], [self.sock], [], 5)
                sent += self.sock.send(data[sent:])
        except OSError:
            self.left = 0


def serve(listener: socket.socket) -> None:
    poll = select.epoll()
    poll.register(listener, select.EPOLLIN)
    connections: dict[int, Connection] = {}
    timers: list[tuple[float, int]] = []
    while True:
        wait = max(0.0, timers[0][0] - time.monotonic()) if timers else -1
        for number, _ in poll.poll(wait, 512):
            if number == listener.fileno():
                sock, _ = listener.accept()
                sock.setblocking(False)
                sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                connections[sock.fileno()] = Connection(sock)
                poll.register(sock, select.EPOLLIN)
            elif not connections[number].receive(timers):
                poll.unregister(number)
                connections.pop(number).sock.close()
        now = time.monotonic()
        while timers and timers[0][0] <= now:
            due, number = heapq.heappop(timers)
            if number in connections:
                connections[number].go_on(timers, now, due)


def main() -> None:
    parser = argparse.ArgumentParser(prog="benchmarks/backend.py", description=__doc__)
    parser.add_argument("--port", type=int, default=0)
    listener = socket.create_server(("127.0.0.1", parser.parse_args().port), backlog=1024)
    print(f"listening on {listener.getsockname()[1]}", file=sys.stderr, flush=True)
    serve(listener)


if __name__ == "__main__":
    main()
