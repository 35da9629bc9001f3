"""Clients that stream from a deployment while something is killed, and what each of them saw."""

from __future__ import annotations

import json
import threading
import time

import attrs
import httpx

from tests.daemon import Daemon

_LONG = {"stream": True, "max_tokens": 4000, "ignore_eos": True}


@attrs.define
class Stream:
    """One answer as its client saw it. Times are in seconds of ``time.monotonic``."""

    status: int = 0
    pieces: int = 0
    error: str = ""
    done: bool = False
    """Whether the answer said that it was over (``[DONE]``)."""
    broken: str = ""
    last: float = 0.0
    ended: float = 0.0

    @property
    def seen(self) -> str:
        """In a few words."""
        how = self.broken or ("an error event" if self.error else "a whole answer")
        return f"{self.status}, {how}{', then [DONE]' if self.done else ''}"


@attrs.define(eq=False)
class Clients:
    """``count`` clients, each of which asks once."""

    server: Daemon
    model: str
    count: int = 2
    streams: list[Stream] = attrs.field(factory=list)
    _threads: list[threading.Thread] = attrs.field(factory=list)

    def start(self) -> Clients:
        """Return once every client has been told some of its answer."""
        for _ in range(self.count):
            stream = Stream()
            self.streams.append(stream)
            thread = threading.Thread(target=self._ask, args=(stream,), daemon=True)
            self._threads.append(thread)
            thread.start()
        end = time.monotonic() + 300
        while not all(stream.pieces > 3 for stream in self.streams):
            assert time.monotonic() < end and not any(stream.ended for stream in self.streams), self.streams
            time.sleep(0.05)
        return self

    def finish(self, within: float) -> list[Stream]:
        """What they saw, once all are over."""
        for thread in self._threads:
            thread.join(within)
        assert all(stream.ended for stream in self.streams), self.streams
        return self.streams

    def _ask(self, stream: Stream) -> None:
        body = {"model": self.model, "messages": [{"role": "user", "content": "Who?"}], **_LONG}
        url = f"{self.server.url}/v1/chat/completions"
        try:
            with httpx.stream("POST", url, json=body, timeout=600) as answer:
                stream.status = answer.status_code
                for line in answer.iter_lines():
                    self._read(stream, line)
        except httpx.HTTPError as error:
            stream.broken = f"broken off ({type(error).__name__})"
        stream.ended = time.monotonic()

    def _read(self, stream: Stream, line: str) -> None:
        if line == "data: [DONE]":
            stream.done = True
        elif line.startswith("data: ") and '"error"' in line:
            stream.error = str(json.loads(line[6:]).get("error", {}).get("message", ""))
        elif line.startswith("data: "):
            stream.pieces += 1
            stream.last = time.monotonic()
