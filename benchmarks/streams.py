"""Many streams at once over raw sockets: how soon the first event comes, and how many come.

    python benchmarks/streams.py PORT API_KEY MODEL STREAMS EVENTS RATE SECONDS

Each of STREAMS connections asks again as soon as its stream has ended. Prints one JSON object.
"""

from __future__ import annotations

import json
import select
import socket
import statistics
import sys
import time

port, key, model = int(sys.argv[1]), sys.argv[2], sys.argv[3]
streams, events, rate, seconds = (float(text) for text in sys.argv[4:8])
body = json.dumps(
    {
        "model": model,
        "stream": True,
        "max_tokens": int(events),
        "seed": int(rate),
        "messages": [{"role": "user", "content": "Tell me about the quick brown fox. " * 12}],
    }
).encode()
REQUEST = (
    b"POST /v1/chat/completions HTTP/1.1\r\nhost: 127.0.0.1\r\ncontent-type: application/json\r\n"
    b"authorization: Bearer %b\r\ncontent-length: %d\r\n\r\n%b" % (key.encode(), len(body), body)
)


class Stream:
    def __init__(self) -> None:
        self.sock = socket.create_connection(("127.0.0.1", port))
        self.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.ask()

    def ask(self) -> None:
        self.began = time.monotonic()
        self.tail = b""
        self.heard = False
        self.first: float | None = None
        self.sock.sendall(REQUEST)


poll = select.epoll()
open_streams: dict[int, Stream] = {}
for _ in range(int(streams)):
    stream = Stream()
    open_streams[stream.sock.fileno()] = stream
    poll.register(stream.sock, select.EPOLLIN)
firsts: list[float] = []
seen = errors = finished = 0
began = time.monotonic()
while (now := time.monotonic()) < began + seconds:
    for number, _ in poll.poll(0.1, 512):
        stream = open_streams[number]
        data = stream.sock.recv(262144)
        if not data or (not stream.heard and b" 200 " not in data[:16]):
            errors += 1
            poll.unregister(stream.sock)
            continue
        stream.heard = True
        whole = stream.tail + data
        seen += whole.count(b'"content"')
        if stream.first is None and b'"content"' in whole:
            stream.first = time.monotonic() - stream.began
            firsts.append(stream.first)
        ended = b"\r\n0\r\n\r\n" in whole
        stream.tail = whole[-8:]
        if ended:
            finished += 1
            stream.ask()
took = time.monotonic() - began
print(
    json.dumps(
        {
            "events": seen,
            "events_s": seen / took,
            "finished": finished,
            "errors": errors,
            "first_p50_ms": statistics.median(firsts) * 1000 if firsts else None,
            "first_p99_ms": sorted(firsts)[int(len(firsts) * 0.99)] * 1000 if firsts else None,
        }
    )
)
