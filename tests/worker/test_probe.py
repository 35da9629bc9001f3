"""An engine is asked by HTTP: 200 in time is a yes, everything else a no."""

from __future__ import annotations

import pytest
import trio

from gpustack.engines.engine import Probe, WarmUp
from gpustack.http1.exchange import Exchange
from gpustack.http1.listen import open_listeners
from gpustack.http1.pool import ConnectionPool
from gpustack.http1.server import HttpServer
from gpustack.worker.engine_key import EngineKeys
from gpustack.worker.probe import Prober


class Answers:
    """An engine that answers by path, and counts."""

    def __init__(self) -> None:
        self.asked: list[bytes] = []
        self.status = 200
        self.asked_often = trio.Event()

    async def __call__(self, exchange: Exchange) -> None:
        self.asked.append(exchange.head.target)
        if len(self.asked) >= 5:
            self.asked_often.set()
        match exchange.head.path:
            case "/hang":
                await trio.sleep_forever()
            case "/huge":
                await exchange.respond(200, body=b"x" * (2 << 20))
            case _:
                await exchange.respond(self.status)


@pytest.fixture
async def engine(nursery: trio.Nursery) -> tuple[Answers, int, Prober]:
    answers, pool = Answers(), ConnectionPool()
    listeners = open_listeners("127.0.0.1", 0)
    await nursery.start(HttpServer("engine", listeners, handler=answers).run)
    await nursery.start(pool.run)
    return answers, listeners[0].getsockname()[1], Prober(pool, EngineKeys())


def probe(path: str, *, timeout: float = 20.0, failures: int = 1) -> Probe:
    return Probe(path=path, period=0.01, timeout=timeout, failures=failures)


async def test_a_probe_hears_yes_and_no(engine: tuple[Answers, int, Prober]) -> None:
    answers, port, prober = engine
    assert await prober.answers(port, probe("/health"))
    assert await prober.answers(port, probe("/huge"))
    assert not await prober.answers(port, probe("/hang", timeout=0.1))
    answers.status = 503
    assert not await prober.answers(port, probe("/health"))


async def test_a_port_nobody_listens_on_is_a_no(engine: tuple[Answers, int, Prober], free_port: int) -> None:
    assert not await engine[2].answers(free_port, probe("/health"))


async def test_whatever_path_a_user_wrote_can_be_asked_for(engine: tuple[Answers, int, Prober]) -> None:
    answers, port, prober = engine
    assert await prober.answers(port, probe("/a b/ü?x=1&y=%20"))
    assert answers.asked == [b"/a%20b/%C3%BC?x=1&y=%20"]


async def test_an_engine_is_dead_after_so_many_refusals_in_a_row(
    engine: tuple[Answers, int, Prober],
) -> None:
    answers, port, prober = engine
    with trio.fail_after(30):
        async with trio.open_nursery() as nursery:

            async def watch() -> None:
                await prober.until_dead(port, probe("/health", failures=3))
                nursery.cancel_scope.cancel()

            nursery.start_soon(watch)
            await answers.asked_often.wait()
            answers.status = 500
            before = len(answers.asked)
            await trio.sleep_forever()
    assert len(answers.asked) >= before + 3


@pytest.mark.parametrize(
    ("path", "patience"), [("/v1/completions", 20.0), ("/huge", 20.0), ("/hang", 0.1), ("/none", 20.0)]
)
async def test_a_first_request_is_made_once_whatever_comes_of_it(
    engine: tuple[Answers, int, Prober], free_port: int, path: str, patience: float
) -> None:
    answers, port, prober = engine
    answers.status = 500
    asked = port if path != "/none" else free_port
    await prober.warm_up(asked, WarmUp(path=path, body='{"max_tokens": 1}', timeout=patience))
    assert answers.asked == ([] if path == "/none" else [path.encode()])
