"""Limits of keys, users and models hold at the gateway: before the call, after it, and when it never ends."""

from __future__ import annotations

import json
import threading
from collections.abc import Awaitable, Callable
from datetime import timedelta
from typing import Any

import pytest
import trio

from gpustack.domain.access import ApiKey, Limits, User
from gpustack.domain.model import Model
from gpustack.domain.usage import BudgetDraw
from gpustack.gateway import inference
from gpustack.policy.usage_limit import LimitKind, period_name
from tests.fakes.running import RunningEngine
from tests.http1.wire import Answer, Script, eventually

from .test_inference import ANSWER, closed_port, plain
from .world import NOW, World, chat, key_of, with_key

StartEngine = Callable[..., RunningEngine]
StartScript = Callable[..., Awaitable[Script]]

pytestmark = pytest.mark.attack("limits")


async def limit(world: World, record: type[Any] = ApiKey, key: int = 1, **limits: int) -> None:
    await world.store.write(lambda tx: tx.change(record, key, limits=Limits(**limits)))


def refusal(answer: Answer) -> tuple[str, str, str]:
    """Type, code and message, in the form that OpenAI's clients read."""
    assert answer.status == 429, answer
    error = json.loads(answer.body)["error"]
    assert error.keys() == {"message", "type", "param", "code"}
    return error["type"], error["code"], error["message"]


def left(answer: Answer, what: str) -> tuple[int, int, str]:
    """Limit, remaining and reset, as the headers tell."""
    prefix, headers = b"x-ratelimit-", answer.headers
    name = what.encode()
    return (
        int(headers[prefix + b"limit-" + name]),
        int(headers[prefix + b"remaining-" + name]),
        headers[prefix + b"reset-" + name].decode(),
    )


def spent(world: World, subject: str = "key:1", kind: LimitKind = LimitKind.DAY, whole: int = 10**9) -> int:
    """What of a budget is used or promised, as this server knows it."""
    return whole - world.budgets.remaining(world.budgets.block(subject, kind, whole))


def drawn(world: World, subject: str = "key:1") -> int:
    found = world.store.snapshot.find(BudgetDraw, subject=subject, period=period_name(LimitKind.DAY, NOW))
    return 0 if found is None else found.drawn


# --- requests


async def test_requests_of_a_minute_are_counted(world: World, fake_engine: StartEngine) -> None:
    engine = fake_engine("--reply", "I am one.")
    model = await world.deploy("m", engine.port)
    await limit(world, requests_per_minute=2)
    first, second, third = [await world.ask("m") for _ in range(3)]
    assert (first.status, second.status) == (200, 200)
    assert left(first, "requests")[:2] == (2, 1)
    assert left(second, "requests")[:2] == (2, 0)
    assert refusal(third) == (
        "requests",
        "rate_limit_exceeded",
        f"This API key may make 2 requests a minute: try again in {int(third.headers[b'retry-after'])} s",
    )
    assert 0 < int(third.headers[b"retry-after"]) <= 61
    assert left(third, "requests")[:2] == (2, 0)
    assert b"x-should-retry" not in third.headers
    assert b"x-ratelimit-limit-tokens" not in third.headers
    assert world.traffic.seen().refused == {("key", "requests_per_minute"): 1}
    assert (await world.sums())[0] == 2, "what is refused is no use of the model"
    assert engine.seen()["requests"] == 2
    assert [key.status for key in world.traffic.seen().requests if key.model_id == model.id] == [200, 429]


async def test_who_is_not_limited_sees_nothing_of_it(world: World, fake_engine: StartEngine) -> None:
    await world.deploy("m", fake_engine().port)
    answer = await world.ask("m")
    assert not [name for name in answer.headers if name.startswith(b"x-ratelimit")]


async def test_all_keys_of_a_user_share_the_users_limit(world: World, fake_engine: StartEngine) -> None:
    await world.deploy("m", fake_engine().port)
    other = await key_of(world.store, world.rng, world.store.snapshot.users[1])
    await limit(world, User, requests_per_minute=2)
    statuses = [(await world.send(chat("m"), key=key)).status for key in (world.key, other, world.key, other)]
    assert statuses == [200, 200, 429, 429]


async def test_everybody_shares_the_limit_of_a_model(world: World, fake_engine: StartEngine) -> None:
    engine = fake_engine()
    await world.deploy("m", engine.port)
    await world.deploy("other", engine.port)
    stranger = await with_key(world.store, world.rng, "eve")
    await limit(world, Model, requests_per_minute=1)
    assert (await world.ask("m")).status == 200
    answer = await world.send(chat("m"), key=stranger)
    assert refusal(answer)[2].startswith("The model 'm' may make 1 requests a minute")
    assert (await world.send(chat("other"), key=stranger)).status == 200


@pytest.mark.parametrize("name", ["requests_per_minute", "concurrent_requests", "tokens_per_minute"])
async def test_a_limit_of_nothing_lets_nothing_in(world: World, fake_engine: StartEngine, name: str) -> None:
    await world.deploy("m", fake_engine().port)
    await limit(world, **{name: 0})
    answer = await world.ask("m", max_tokens=1)
    assert refusal(answer)[1] == "rate_limit_exceeded"
    assert b"retry-after" not in answer.headers
    assert answer.headers[b"x-should-retry"] == b"false"


# --- at once


async def test_so_many_are_under_way_and_no_more(world: World, fake_engine: StartEngine) -> None:
    engine = fake_engine("--reply", "w", "--repeat", "2", "--slow-token", "0.01")
    await world.deploy("m", engine.port)
    await limit(world, concurrent_requests=3)
    statuses: list[int] = []

    async def call() -> None:
        statuses.append((await world.ask("m", stream=True)).status)

    async with trio.open_nursery() as nursery:
        for _ in range(60):
            nursery.start_soon(call)
    assert engine.seen()["most_active"] <= 3
    assert statuses.count(200) >= 3
    assert set(statuses) == {200, 429}
    await eventually(lambda: world.limiter.under_way == 0)
    assert (await world.ask("m")).status == 200


async def test_a_client_that_leaves_makes_room(world: World, fake_engine: StartEngine) -> None:
    await world.deploy("m", fake_engine("--repeat", "500", "--slow-token", "0.05").port)
    await limit(world, concurrent_requests=1)
    for _ in range(3):
        client = await world.connect()
        await client.send(world.request(chat("m", stream=True)))
        await client.until(b"data: ")
        assert refusal(await world.ask("m"))[0] == "requests"
        await client.close()
        await eventually(lambda: world.limiter.under_way == 0)


# --- tokens


async def test_what_may_be_used_is_reserved_and_what_was_not_comes_back(
    world: World, fake_engine: StartEngine
) -> None:
    engine = fake_engine("--reply", "I am one.")
    await world.deploy("m", engine.port)
    await limit(world, tokens_per_minute=1000)
    first = await world.ask("m", max_tokens=600)
    assert first.status == 200
    size = len(chat("m", max_tokens=600)) + 256
    assert left(first, "tokens")[:2] == (1000, 1000 - size - 600)
    second = await world.ask("m", max_tokens=600)
    assert left(second, "tokens")[1] == 1000 - size - 600 - 6, "three of prompt and three of answer"


async def test_what_can_never_fit_is_said_at_once(world: World, fake_engine: StartEngine) -> None:
    await world.deploy("m", fake_engine().port)
    await limit(world, tokens_per_minute=1000)
    answer = await world.ask("m")  # a context of 8192 tokens
    kind, code, message = refusal(answer)
    assert (kind, code) == ("tokens", "rate_limit_exceeded")
    assert message == (
        "This API key may use 1000 tokens a minute, and fewer are left than the 8192 that this request may use: "
        "send a smaller max_tokens or a shorter prompt"
    )
    assert answer.headers[b"x-should-retry"] == b"false"
    assert (await world.ask("m", max_tokens=5)).status == 200


async def test_where_no_length_is_known_one_has_to_be_sent(world: World, fake_engine: StartEngine) -> None:
    await world.deploy("m", fake_engine().port, backend="custom", command="engine --port {port}")
    await limit(world, tokens_per_minute=1000)
    answer = await world.ask("m")
    assert answer.status == 400
    assert "send max_tokens" in json.loads(answer.body)["error"]["message"]
    assert (await world.ask("m", max_tokens=5)).status == 200


@pytest.mark.parametrize("stream", [False, True])
async def test_a_call_that_fails_costs_no_tokens(world: World, scripted: StartScript, stream: bool) -> None:
    await world.deploy("dead", await closed_port())
    refusing = await scripted(plain(b"{}", status=b"400 Bad Request"))
    await world.deploy("refuses", refusing.port)
    await limit(world, tokens_per_day=10**9)
    assert (await world.ask("dead", stream=stream)).status == 503
    assert (await world.ask("refuses", stream=stream)).status == 400
    assert spent(world) == 0
    assert world.limiter.under_way == 0


async def test_a_stream_that_is_left_counts_its_prompt_and_what_it_said(
    world: World, fake_engine: StartEngine
) -> None:
    await world.deploy("m", fake_engine("--repeat", "500", "--slow-token", "0.02").port)
    await limit(world, tokens_per_day=10**9)
    body = chat("m", stream=True, max_tokens=5000)
    client = await world.connect()
    await client.send(world.request(body))
    for _ in range(5):
        await client.until(b"data: ")
    await client.close()
    await eventually(lambda: world.limiter.under_way == 0)
    counted = (await world.sums())[3]
    assert counted >= 5
    prompt = len(body) + len(b'"stream_options":{"include_usage":true},') + 256
    assert spent(world) == prompt + counted


async def test_a_client_that_does_not_wait_pays_for_its_prompt(
    world: World, fake_engine: StartEngine
) -> None:
    """Else engines could be kept busy for nothing."""
    engine = fake_engine("--latency", "30")
    await world.deploy("m", engine.port)
    await limit(world, tokens_per_day=10**9)
    body = chat("m", max_tokens=5000)
    client = await world.connect()
    await client.send(world.request(body))
    await trio.to_thread.run_sync(lambda: engine.seen(active=1))
    await client.close()
    await eventually(lambda: world.limiter.under_way == 0)
    assert spent(world) == len(body) + 256


async def test_an_answer_that_tells_nothing_counts_for_all_it_may_have_been(
    world: World, scripted: StartScript
) -> None:
    await world.deploy("m", (await scripted(plain(b'{"choices": []}'))).port)
    await limit(world, tokens_per_day=10**9)
    body = chat("m", max_tokens=700)
    assert (await world.send(body)).status == 200
    assert spent(world) == len(body) + 256 + 700


async def test_what_an_engine_used_beyond_its_promise_is_held_against_the_next(
    world: World, scripted: StartScript
) -> None:
    greedy = ANSWER.replace(b'"completion_tokens": 5', b'"completion_tokens": 90000')
    await world.deploy("m", (await scripted(plain(greedy))).port)
    await limit(world, tokens_per_day=10_000)
    assert (await world.ask("m", max_tokens=5)).status == 200
    assert refusal(await world.ask("m", max_tokens=5))[0] == "insufficient_quota"
    # Written down whatever the limit, so that a crash forgives nothing.
    await eventually(lambda: drawn(world) == 90003)


# --- budgets


async def test_five_hundred_at_once_stay_within_a_budget(world: World, fake_engine: StartEngine) -> None:
    """Each may use some 460 tokens and uses 103; whoever is refused because of others under way comes back."""
    budget, engines = 30_000, [fake_engine("--reply", "w", "--repeat", "100") for _ in range(2)]
    await world.deploy("m", *(engine.port for engine in engines))
    await limit(world, tokens_per_day=budget)
    answers: list[Answer] = []

    async def call() -> None:
        while True:
            answer = await world.ask("m", max_tokens=100)
            answers.append(answer)
            if answer.status == 200 or b"x-should-retry" in answer.headers:
                return
            await trio.sleep(0.3)  # as clients do, only sooner

    with trio.fail_after(60):
        async with trio.open_nursery() as nursery:
            for _ in range(500):
                nursery.start_soon(call)
    good = sum(answer.status == 200 for answer in answers)
    _, _, prompt, completion = await world.sums()
    assert prompt + completion == 103 * good <= budget
    assert sum(engine.seen()["finished"] for engine in engines) == good
    assert good >= (budget - 460) // 103, "what is not used is not lost"
    assert {answer.status for answer in answers} == {200, 429}
    assert world.budgets.draws < 100, "many wait for one draw"
    await world.budgets.give_up()
    assert drawn(world) == 103 * good


async def test_clients_that_leave_at_any_moment_leave_nothing_reserved(
    world: World, fake_engine: StartEngine
) -> None:
    await world.deploy("m", fake_engine("--reply", "w", "--repeat", "20", "--slow-token", "0.005").port)
    await limit(world, tokens_per_day=10**6, tokens_per_minute=10**6, concurrent_requests=30)
    await limit(world, User, concurrent_requests=25, tokens_per_month=10**6)
    assert (await world.ask("m", max_tokens=20)).status == 200  # from here on nobody has to wait for a block
    before = spent(world, whole=10**6)
    pauses = [world.rng.random() * 0.3 for _ in range(150)]

    async def call(pause: float, stream: bool) -> None:
        client = await world.connect()
        await client.send(world.request(chat("m", stream=stream, max_tokens=20)))
        await trio.sleep(pause)
        await client.close()

    with trio.fail_after(60):
        async with trio.open_nursery() as nursery:
            for number, pause in enumerate(pauses):
                nursery.start_soon(call, pause, number % 2 == 0)
    await eventually(lambda: world.gate.inside == 0)
    assert world.limiter.under_way == 0
    blocks = [
        world.budgets.block(subject, kind, 10**6)
        for subject, kind in (("key:1", LimitKind.DAY), ("user:1", LimitKind.MONTH))
    ]
    assert [block.promised for block in blocks] == [0, 0]
    assert spent(world, whole=10**6) == spent(world, "user:1", LimitKind.MONTH, 10**6) > before
    await world.budgets.give_up()
    await eventually(lambda: drawn(world) == spent(world, whole=10**6))


async def test_an_engine_does_not_speak_of_our_limits(world: World, scripted: StartScript) -> None:
    said = plain(ANSWER, b"x-ratelimit-remaining-requests: 99", b"X-RateLimit-Limit-Tokens: 5")
    await world.deploy("m", (await scripted(said)).port)
    await limit(world, requests_per_minute=7)
    answer = await world.ask("m")
    assert left(answer, "requests")[:2] == (7, 6)
    assert b"x-ratelimit-limit-tokens" not in answer.headers


async def test_a_budget_of_a_day_is_there_again_the_next_day(world: World, fake_engine: StartEngine) -> None:
    await world.deploy("m", fake_engine("--reply", "a b c").port)
    await limit(world, tokens_per_day=400, tokens_per_month=10_000)
    statuses = []
    while not statuses or statuses[-1] == 200:
        answer = await world.ask("m", max_tokens=10)
        statuses.append(answer.status)
    kind, code, message = refusal(answer)
    assert (kind, code) == ("insufficient_quota", "insufficient_quota")
    assert "may use 400 tokens a day" in message
    assert int(answer.headers[b"retry-after"]) == 18 * 3600 + 53 * 60 + 53
    assert left(answer, "tokens")[2] == "18h53m53s"
    world.clock.now = NOW + timedelta(days=1)
    assert (await world.ask("m", max_tokens=10)).status == 200
    assert spent(world, kind=LimitKind.MONTH) == 6 * len(statuses), "the month goes on"
    world.clock.now = NOW


async def test_a_limit_that_is_lowered_holds_at_once(world: World, fake_engine: StartEngine) -> None:
    await world.deploy("m", fake_engine("--reply", "a b c").port)
    await limit(world, tokens_per_day=1_000_000)
    assert (await world.ask("m", max_tokens=10)).status == 200
    await limit(world, tokens_per_day=5)
    assert refusal(await world.ask("m", max_tokens=1))[0] == "insufficient_quota"
    await limit(world, tokens_per_day=1_000_000)
    assert (await world.ask("m", max_tokens=10)).status == 200


async def test_while_the_database_is_away_what_is_drawn_can_be_used(
    world: World, fake_engine: StartEngine
) -> None:
    await world.deploy("m", fake_engine("--reply", "a b c").port)
    await limit(world, tokens_per_day=16_000)
    assert (await world.ask("m", max_tokens=10)).status == 200  # a block of 1000
    world.store.close()
    answers = [await world.ask("m", max_tokens=10) for _ in range(2)]
    assert [answer.status for answer in answers] == [200, 200]
    away = await world.ask("m", max_tokens=5000)
    assert away.status == 503
    assert int(away.headers[b"retry-after"]) >= 1
    assert "budget" in json.loads(away.body)["error"]["message"]


async def test_all_limits_must_let_a_request_in_or_none_counts_it(
    world: World, fake_engine: StartEngine
) -> None:
    await world.deploy("m", fake_engine("--reply", "a b c").port)
    await limit(world, tokens_per_day=10**6, requests_per_minute=100)
    await limit(world, User, tokens_per_minute=10)
    for _ in range(5):
        assert refusal(await world.ask("m", max_tokens=10))[0] == "tokens"
    assert spent(world) == 0
    await limit(world, User, tokens_per_minute=10**6)
    answer = await world.ask("m", max_tokens=10)
    assert left(answer, "requests")[:2] == (100, 99)


async def test_a_large_body_is_bounded_too(world: World, fake_engine: StartEngine) -> None:
    await world.deploy("m", fake_engine().port)
    await limit(world, tokens_per_minute=2 << 20)
    body = json.dumps({"model": "m", "max_tokens": 5, "messages": [], "user": "x" * (1 << 20)}).encode()
    answer = await world.send(body)
    assert answer.status == 200
    assert left(answer, "tokens")[1] == (2 << 20) - 8192, "no prompt is longer than the context"


@pytest.fixture
def threads_of(monkeypatch: pytest.MonkeyPatch) -> dict[str, list[bool]]:
    """Whether each ask and each bound was found in another thread than that of the loop."""
    found: dict[str, list[bool]] = {"_parse": [], "bound_of": []}
    loop = threading.get_ident()

    def noting(seen: list[bool], real: Callable[..., Any]) -> Callable[..., Any]:
        def note(*args: Any) -> Any:
            seen.append(threading.get_ident() != loop)
            return real(*args)

        return note

    for name, seen in found.items():
        monkeypatch.setattr(inference, name, noting(seen, getattr(inference, name)))
    return found


@pytest.mark.attack("flood")
@pytest.mark.parametrize(
    ("more", "aside"),
    [
        (b'"x":[%b[]]' % (b"[]," * 30_000), False),
        (b'"messages":[{"model":1}],"x":[%b[]]' % (b"[]," * 30_000), True),
        (b'"x":[%b"\\u0061"]' % (b"[]," * 30_000), True),
        (b'"x":[%b[]],"stream":true,"stream_options":{}' % (b"[]," * 30_000), True),
        (b'"messages":[{"model":1}]', False),
    ],
)
async def test_a_body_that_takes_long_to_look_through_keeps_nobody_waiting(
    world: World, fake_engine: StartEngine, threads_of: dict[str, list[bool]], more: bytes, aside: bool
) -> None:
    await world.deploy("m", fake_engine().port)
    await world.send(b'{"model":"m",%b}' % more)
    assert threads_of == {"_parse": [aside], "bound_of": []}
    await limit(world, tokens_per_minute=10**6)
    await world.send(b'{"model":"m",%b}' % more)
    assert threads_of == {"_parse": [aside, aside], "bound_of": [len(more) > 64 << 10]}


@pytest.mark.attack("flood")
@pytest.mark.parametrize("name", ["requests_per_minute", "concurrent_requests"])
async def test_who_is_not_let_in_has_no_long_body_looked_through(
    world: World, fake_engine: StartEngine, threads_of: dict[str, list[bool]], name: str
) -> None:
    await world.deploy("m", fake_engine().port)
    await limit(world, **{name: 0}, tokens_per_day=10**9)
    long = json.dumps({"model": "m", "max_tokens": 5, "messages": [], "user": "x" * (100 << 10)}).encode()
    answer = await world.send(long)
    assert (answer.status, refusal(answer)[0]) == (429, "requests")
    assert answer.headers[b"x-should-retry"] == b"false"
    assert threads_of["bound_of"] == []
    assert spent(world) == 0
