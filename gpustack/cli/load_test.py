"""Puts a model under load: as many requests at once as a level says, for so long, over connections that are kept."""

from __future__ import annotations

import json
import random
import re
import ssl
import time
from collections.abc import Callable, Mapping
from typing import Any

import attrs
import trio

from gpustack.cli.load_report import LoadLevel, Sample
from gpustack.cli.session import Doc, ServerAddress
from gpustack.errors import GpustackError
from gpustack.http1.pool import ConnectionPool
from gpustack.remote.http import ANSWER_LIMIT
from gpustack.remote.pooled_client import PooledClient
from gpustack.remote.server_error import fault_of

_LINE_LIMIT = 1 << 20
_FAULT_LIMIT = 64 << 10
_LONGEST = 3.0
"""A level goes on for at most so many times its time, until each of its senders has had one answer."""
_USAGE = re.compile(rb'"usage"\s*:\s*\{')
_PAUSE = 0.05
"""Seconds before a sender whose request failed tries again."""
_WORDS = (
    *(
        "amber",
        "river",
        "stone",
        "quiet",
        "window",
        "market",
        "signal",
        "harbor",
        "winter",
        "paper",
        "garden",
    ),
    *("engine", "copper", "violet", "morning", "letter", "bridge", "silver", "forest", "number", "candle"),
    *("mirror", "ocean", "planet", "thread", "basket", "hollow", "meadow", "rocket", "summer"),
)


@attrs.frozen(kw_only=True)
class LoadShape:
    """What is asked. Prompts of the same ``seed`` are the same, and no two of one test: no cache answers them."""

    model: str
    kind: str
    """``chat`` or ``embedding``."""
    prompt_words: int = 100
    answer_tokens: int = 64
    seed: int = 1

    def body(self, level: int, number: int) -> bytes:
        """The body of a request of a level."""
        chance = random.Random(f"{self.seed}/{level}/{number}")
        text = " ".join(chance.choices(_WORDS, k=self.prompt_words))
        if self.kind == "embedding":
            return json.dumps({"model": self.model, "input": text}).encode()
        messages = [{"role": "user", "content": f"Write a long story with these words: {text}"}]
        asked: Doc = {"model": self.model, "messages": messages, "max_tokens": self.answer_tokens}
        return json.dumps({**asked, "stream": True, "stream_options": {"include_usage": True}}).encode()

    @property
    def path(self) -> str:
        return "/v1/embeddings" if self.kind == "embedding" else "/v1/chat/completions"


@attrs.define(eq=False)
class LoadTest:
    """Requests of one shape to one server; ``pool`` must run meanwhile."""

    shape: LoadShape
    client: PooledClient
    headers: Mapping[str, str] = attrs.field(repr=False)
    patience: float = 60.0
    """Seconds without a byte after which a request has failed."""

    @classmethod
    def to(cls, address: ServerAddress, pool: ConnectionPool, shape: LoadShape) -> LoadTest:
        """A test of a model of the server at ``address``."""
        headers = {"content-type": "application/json"}
        if address.key is not None:
            headers["authorization"] = f"Bearer {address.key}"
        trust = None
        if not address.must_verify:
            trust = ssl.create_default_context()
            trust.check_hostname, trust.verify_mode = False, ssl.CERT_NONE
        return cls(shape, PooledClient.to(address.url, pool, trust=trust), headers)

    async def warm_up(self) -> Sample:
        """One request that is not counted."""
        return await self._ask(0, 0)

    async def level(
        self, concurrency: int, seconds: float, most: int, seen: Callable[[LoadLevel], None]
    ) -> LoadLevel:
        """Have ``concurrency`` requests under way for ``seconds``, with at most ``most`` in all. ``seen`` is told what
        there is whenever a request ends, so that nothing is lost if this is cancelled."""
        begun, spent = time.monotonic(), time.process_time()
        samples: list[Sample] = []
        open_ones: dict[int, list[int]] = {}
        issued = iter(range(1, most + 1))

        def so_far() -> LoadLevel:
            wall = max(time.monotonic() - begun, 1e-6)
            under_way = [Sample(tokens=count[0]) for count in open_ones.values() if count[0]]
            busy = (time.process_time() - spent) / wall
            return LoadLevel(concurrency=concurrency, seconds=wall, busy=busy, samples=[*samples, *under_way])

        def is_over() -> bool:
            return time.monotonic() - begun >= seconds and len(samples) >= concurrency

        async def send() -> None:
            for number in issued:
                count = open_ones[number] = [0]
                sample = await self._ask(concurrency, number, count)
                del open_ones[number]
                samples.append(sample)
                seen(so_far())
                if is_over():
                    nursery.cancel_scope.cancel()
                if sample.fault is not None:
                    await trio.sleep(_PAUSE)

        async def end() -> None:
            await trio.sleep(seconds)
            if is_over():  # else the next answer ends it
                nursery.cancel_scope.cancel()

        with trio.move_on_after(_LONGEST * seconds):
            async with trio.open_nursery() as nursery:
                nursery.start_soon(end)
                async with trio.open_nursery() as senders:
                    for _ in range(concurrency):
                        senders.start_soon(send)
                nursery.cancel_scope.cancel()
        return so_far()

    async def _ask(self, level: int, number: int, count: list[int] | None = None) -> Sample:
        """One request; what goes wrong is in the sample. ``count`` has the tokens of now, while it is under way."""
        body, begun = self.shape.body(level, number), time.monotonic()
        reading = _AnswerReading(begun, count if count is not None else [0])
        try:
            stream = self.client.stream(
                "POST", self.shape.path, headers=self.headers, body=body, timeout=self.patience
            )
            async with stream as answer:
                if answer.status != 200:
                    error = fault_of(answer.status, await answer.read(_FAULT_LIMIT))
                    return Sample(fault=f"{answer.status}: {error}")
                if self.shape.kind == "embedding":
                    return _embedded(await answer.read(4 * ANSWER_LIMIT), begun)
                async for piece in answer.pieces():
                    reading.take(piece)
        except GpustackError as error:
            return Sample(first=reading.first, tokens=reading.count[0], fault=str(error))
        return reading.sample()


def _embedded(body: bytes, begun: float) -> Sample:
    took = time.monotonic() - begun
    try:
        usage = json.loads(body)["usage"]
    except (ValueError, KeyError, TypeError):
        usage = {}
    return Sample(took=took, prompt_tokens=_whole(usage, "prompt_tokens"))


def _whole(usage: Any, name: str) -> int | None:
    found = usage.get(name) if isinstance(usage, dict) else None
    return found if isinstance(found, int) else None


@attrs.define(eq=False)
class _AnswerReading:
    """A streamed answer as it is read. Only what begins and ends it is parsed: parsing each piece would be measured
    too."""

    begun: float
    count: list[int]
    first: float | None = None
    _rest: bytes = b""
    _usage: Any = None
    _fault: str | None = None

    def take(self, piece: bytes) -> None:
        *lines, self._rest = (self._rest + piece).split(b"\n")
        self._rest = self._rest[-_LINE_LIMIT:]
        for line in lines:
            if line.startswith(b"data:") and b"[DONE]" not in line[:16]:
                self._take_event(line[5:])

    def _take_event(self, text: bytes) -> None:
        is_fault = text.lstrip()[:9] == b'{"error":'
        if self.first is not None and not is_fault and _USAGE.search(text) is None:
            self.count[0] += b'"delta":{}' not in text
            return
        try:
            chunk = json.loads(text)
        except ValueError:
            return
        if not isinstance(chunk, dict):
            return
        if isinstance(chunk.get("error"), dict):
            self._fault = str(chunk["error"].get("message") or "the answer broke off")
        if isinstance(chunk.get("usage"), dict):
            self._usage = chunk["usage"]
        if any(_says_something(choice) for choice in chunk.get("choices") or ()):
            self.count[0] += 1
            if self.first is None:
                self.first = time.monotonic() - self.begun

    def sample(self) -> Sample:
        counted = _whole(self._usage, "completion_tokens")
        return Sample(
            first=self.first,
            took=time.monotonic() - self.begun,
            tokens=self.count[0] if counted is None else counted,
            prompt_tokens=_whole(self._usage, "prompt_tokens"),
            fault=self._fault or (None if self.first is not None else "the answer was empty"),
        )


def _says_something(choice: Any) -> bool:
    delta = choice.get("delta") if isinstance(choice, dict) else None
    if not isinstance(delta, dict):
        return False
    return any(delta.get(name) for name in ("content", "reasoning_content", "reasoning", "tool_calls"))
