"""Measure how many requests and tokens a second a model answers under rising load.

Usage:
  gpustack bench [options] MODEL

It warms up with one request, then asks 1, 2, 4 … at a time until that brings nothing more, and says what limits it.
Prompts are random words, the same for the same seed. It takes about a minute and is a real load: other users of the
model notice it, and it counts against limits and budgets of your key. Ctrl-C shows what was measured until then.

Options:
  --concurrency=LIST   How many at once, one level each, such as 1,8,32 (default: doubled from 1, at most 64).
  --seconds=SECONDS    How long each level takes (default: 5).
  --requests=NUMBER    At most so many requests a level (default: 2000).
  --prompt-words=N     How long each prompt is (default: 100).
  --tokens=NUMBER      How many tokens an answer has at most (default: 64).
  --seed=NUMBER        Which prompts are sent (default: 1).
  -o, --output=FORM    table, json or yaml (default: table).
  -h, --help           Show this help.
"""

from __future__ import annotations

import signal
import textwrap
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from gpustack.cli import output
from gpustack.cli.command_line import CommandLine, read
from gpustack.cli.failure import INTERRUPTED
from gpustack.cli.output import Cell, Row
from gpustack.cli.session import Doc, ServerSession, open_session
from gpustack.cli.terminal import Terminal, stderr, stdout
from gpustack.errors import GpustackError, Unavailable

if TYPE_CHECKING:
    from gpustack.cli.load_report import LoadLevel
    from gpustack.cli.load_test import LoadShape
    from gpustack.remote.admin_client import AdminClient

_DOUBLED = (1, 2, 4, 8, 16, 32, 64)
_MOST_AT_ONCE = 1024
_HEADS = ("AT ONCE", "REQUESTS/S", "TOKENS/S", "FIRST TOKEN", "99 %", "ANSWER", "ERRORS")
_KINDS = {"llm": "chat", "embedding": "embedding"}
_WIDTH = 80
_FEW = 5


def run(argv: Sequence[str], env: Mapping[str, str]) -> int:
    """Print the figures of every level, a plot, and what limits the model."""
    command_line = read(__doc__, "bench", argv)
    command_line.choice("--output", *output.FORMS)
    steps, seconds = _steps(command_line), command_line.whole("--seconds", least=1, most=600) or 5
    most = command_line.whole("--requests", least=1, most=1_000_000) or 2000
    session, aside = open_session(env), stderr(env)
    model, replicas = session.run(lambda client: _look(client, command_line.required("MODEL")))
    shape = _shape(command_line, model)
    levels: list[LoadLevel] = []
    interrupted = session.run(lambda _: _measure(session, shape, steps, seconds, most, levels, aside))
    aside.clear()
    from gpustack.cli.load_report import limit_of

    document = {
        "model": model["name"],
        "kind": shape.kind,
        "replicas": replicas,
        "seed": shape.seed,
        "prompt_words": shape.prompt_words,
        "answer_tokens": shape.answer_tokens if shape.kind == "chat" else None,
        "levels": [level.document() for level in levels],
        "limit": limit_of(levels, replicas),
        "interrupted": interrupted,
    }
    output.show(command_line, document, lambda: _told(document, levels, stdout(env)))
    return INTERRUPTED if interrupted else 0


def _steps(command_line: CommandLine) -> list[int] | None:
    """The levels that are asked for; ``None`` for as many as bring something. Raises UsageError."""
    text = command_line.text("--concurrency")
    if text is None:
        return None
    parts = text.split(",")
    numbers = [int(part) for part in parts if part.isascii() and part.isdigit() and len(part) < 6]
    if len(numbers) != len(parts) or not all(1 <= number <= _MOST_AT_ONCE for number in numbers):
        raise command_line.error(
            f"--concurrency must be numbers from 1 to {_MOST_AT_ONCE} with commas between them, not {text!r}"
        )
    return numbers


async def _look(client: AdminClient, name: str) -> tuple[Doc, int]:
    """The model, and how many of its replicas answer. Raises NotFound, and Unavailable if none does."""
    from gpustack.cli.lookup import answering

    model = await answering(client, name)
    ready = int(model.get("ready_replicas") or 0)
    if not ready:
        raise Unavailable(
            f"No replica of {name} is ready: gpustack explain {name} says why, gpustack run starts it"
        )
    return model, ready


def _shape(command_line: CommandLine, model: Doc) -> LoadShape:
    from gpustack.cli.load_test import LoadShape

    categories = [str(one) for one in model.get("categories") or ["llm"]]
    kind = next((_KINDS[one] for one in categories if one in _KINDS), None)
    if kind is None:
        raise GpustackError(
            f"{model['name']} is for {', '.join(categories)}: only models for chat and for embeddings can be measured"
        )
    seed = command_line.whole("--seed")
    return LoadShape(
        model=str(model["name"]),
        kind=kind,
        prompt_words=command_line.whole("--prompt-words", least=1, most=1_000_000) or 100,
        answer_tokens=command_line.whole("--tokens", least=1, most=1_000_000) or 64,
        seed=1 if seed is None else seed,
    )


async def _measure(
    session: ServerSession,
    shape: LoadShape,
    steps: Sequence[int] | None,
    seconds: int,
    most: int,
    levels: list[LoadLevel],
    aside: Terminal,
) -> bool:
    """Fill ``levels``; whether Ctrl-C ended it. Raises GpustackError when not even the first request is answered."""
    import trio

    from gpustack.cli.load_report import duration, is_saturated
    from gpustack.cli.load_test import LoadTest
    from gpustack.http1.pool import ConnectionPool

    interrupted = False
    async with trio.open_nursery() as nursery:
        pool = ConnectionPool(name="bench")
        await nursery.start(pool.run)
        test = LoadTest.to(session.address, pool, shape)

        async def stop() -> None:
            nonlocal interrupted
            with trio.open_signal_receiver(signal.SIGINT) as signals:
                async for _ in signals:
                    interrupted = True
                    measuring.cancel()
                    return

        with trio.CancelScope() as measuring:
            nursery.start_soon(stop)
            aside.draw("warming up")
            warm = await test.warm_up()
            if warm.fault is not None:
                raise GpustackError(f"{shape.model} does not answer: {warm.fault}")
            aside.say(f"warmed up with one request in {duration(warm.took)}")
            for concurrency in steps or _DOUBLED:
                levels.append(_nothing(concurrency))

                def seen(level: LoadLevel) -> None:
                    levels[-1] = level
                    speed = f"{level.tokens_per_second:.0f} tokens/s, {len(level.done)} done"
                    aside.draw(f"{level.concurrency} at once: {speed}")

                levels[-1] = await test.level(concurrency, float(seconds), most, seen)
                if steps is None and is_saturated(levels):
                    break
        nursery.cancel_scope.cancel()
    if interrupted:
        levels[:] = [level for level in levels if level.samples]
    return interrupted


def _nothing(concurrency: int) -> LoadLevel:
    from gpustack.cli.load_report import LoadLevel

    return LoadLevel(concurrency=concurrency, seconds=1.0, busy=0.0, samples=())


def _told(document: Doc, levels: Sequence[LoadLevel], terminal: Terminal) -> str:
    from gpustack.cli.load_report import bars, duration

    is_chat = document["kind"] == "chat"
    lines = [output.draw_table(_HEADS, list(map(_row, levels)), terminal), ""]
    unit = "tokens" if is_chat else "requests"
    width = min(terminal.width, _WIDTH)
    speed = [
        (str(level.concurrency), value, f"{value:.3g}" if value < 1000 else f"{value:.0f}")
        for level in levels
        for value in [level.tokens_per_second if is_chat else level.requests_per_second]
    ]
    lines += [f"{unit}/s by how many are asked at once", *bars(speed, width, utf8=terminal.utf8), ""]
    waits = [
        (str(level.concurrency), value, duration(value))
        for level in levels
        for value in [level.first_token(0.5) if is_chat else level.latency(0.5)]
        if value is not None
    ]
    waited = "first token after (half of the requests)" if is_chat else "answer after (half of the requests)"
    lines += [waited, *bars(waits, width, utf8=terminal.utf8), ""]
    lines += [f"{fault}: {count} times" for level in levels[-1:] for fault, count in level.faults.items()]
    sentences = [f"What limits it: {document['limit']['sentence']}"]
    if rough := [
        str(level.concurrency) for level in levels if len(level.done) < max(_FEW, level.concurrency)
    ]:
        sentences.append(
            f"Few answers were counted with {', '.join(rough)} at once: --seconds measures for longer."
        )
    return "\n".join([*lines, *(textwrap.fill(sentence, _WIDTH) for sentence in sentences)])


def _row(level: LoadLevel) -> Row:
    from gpustack.cli.load_report import duration

    errors = sum(level.faults.values())
    return Row(
        [
            f"{level.concurrency}",
            f"{level.requests_per_second:.2f}",
            f"{level.tokens_per_second:.1f}",
            duration(level.first_token(0.5)),
            duration(level.first_token(0.99)),
            duration(level.latency(0.5)),
            Cell(f"{errors}", "red" if errors else None),
        ]
    )
