"""The console looks at model hubs through the server: at those alone, and takes nobody's credentials there."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from typing import Any
from urllib.parse import quote

import httpx
import pytest
import trio

from gpustack.api.context import HubAccess
from gpustack.api.resources.proxy import LARGEST, is_redirect_allowed, target
from gpustack.errors import BadRequest, Forbidden
from gpustack.http1.exchange import ClientDisconnect, Exchange
from gpustack.http1.handoff import HypercornHandOff
from gpustack.http1.listen import open_listeners
from gpustack.http1.server import HttpServer
from tests.fakes.hub import Hub, running_hub
from tests.server.feed import Feed, serving

from .world import World

TOKEN = "hf_the_administrators_own"
PUBLIC = HubAccess(token=TOKEN)
MIRROR = HubAccess(endpoint="https://mirror.example/hf", token=TOKEN)


@pytest.mark.parametrize(
    ("url", "asked", "is_hub"),
    [
        (
            "https://huggingface.co/api/models?search=a&b=c",
            "https://huggingface.co/api/models?search=a&b=c",
            True,
        ),
        ("https://HuggingFace.co:443", "https://huggingface.co/", True),
        ("https://www.modelscope.cn/api/v1/models", "https://www.modelscope.cn/api/v1/models", False),
        ("https://modelscope.cn/#part", "https://modelscope.cn/", False),
    ],
)
def test_known_hubs_are_asked(url: str, asked: str, is_hub: bool) -> None:
    found = target(url, PUBLIC)
    assert (found.url, found.is_hub) == (asked, is_hub)


def test_a_mirror_takes_the_place_of_the_public_hub_and_its_token() -> None:
    for url in ("https://huggingface.co/api/models?x=1", "https://mirror.example/api/models?x=1"):
        found = target(url, MIRROR)
        assert (found.url, found.is_hub) == ("https://mirror.example/hf/api/models?x=1", True)
    assert not target("https://modelscope.cn/api", MIRROR).is_hub


def test_a_mirror_of_modelscope_takes_its_place_and_gets_no_token_of_another_hub() -> None:
    hub = HubAccess(token=TOKEN, model_scope="https://ms.example")
    for host in ("modelscope.cn", "www.modelscope.cn"):
        found = target(f"https://{host}/api/v1/models/a/b?x=1", hub)
        assert (found.url, found.is_hub) == ("https://ms.example/api/v1/models/a/b?x=1", False)
    assert is_redirect_allowed("https://ms.example/x", hub)


@pytest.mark.attack("ssrf")
@pytest.mark.parametrize(
    "url",
    [
        "http://huggingface.co/api",
        "https://huggingface.co:8443/api",
        "https://evil.example/",
        "https://huggingface.co.evil.example/",
        "https://cdn-lfs.huggingface.co/x",
        "https://127.0.0.1/",
        "https://169.254.169.254/latest",
        "ftp://huggingface.co/",
        "http://mirror.example/",
        "https://mirror.example:444/",
    ],
)
def test_no_other_place_is_asked(url: str) -> None:
    for hub in (PUBLIC, MIRROR):
        with pytest.raises(Forbidden):
            target(url, hub)


@pytest.mark.attack("ssrf")
@pytest.mark.parametrize(
    "url",
    [
        "huggingface.co/api",
        "//huggingface.co/api",
        "https://me:secret@huggingface.co/",
        "https://huggingface.co\\@evil.example/",
        "https://huggingface.co\t/",
        "https://[::1/",
        "https://huggingface.co:port/",
        "https:///api",
    ],
)
def test_what_is_no_plain_address_is_refused(url: str) -> None:
    with pytest.raises(BadRequest):
        target(url, PUBLIC)


@pytest.mark.attack("ssrf")
@pytest.mark.parametrize(
    ("url", "followed"),
    [
        ("https://cdn-lfs.hf.co/repos/x", True),
        ("https://cas-bridge.xethub.hf.co/x", True),
        ("https://huggingface.co/other", True),
        ("https://hf.co.evil.example/", False),
        ("https://evilhf.co/", False),
        ("http://cdn-lfs.hf.co/", False),
        ("https://cdn-lfs.hf.co:8443/", False),
    ],
)
def test_redirects_lead_to_hubs_and_where_they_deliver_from(url: str, followed: bool) -> None:
    assert is_redirect_allowed(url, PUBLIC) is followed


# --- with a hub on loopback


@pytest.fixture
def hub() -> Iterator[Hub]:
    with running_hub() as one:
        one.tokens[TOKEN] = {"*"}
        one.add("me/open", {"config.json": b'{"a": 1}'})
        one.add("me/secret", {"config.json": b'{"b": 2}'}, private=True)
        yield one


@pytest.fixture
def looking(world: World, hub: Hub) -> World:
    return world.rebuilt(hub=HubAccess(endpoint=hub.url, token=TOKEN))


async def through(world: World, url: str, who: Any = None, method: str = "GET", **more: Any) -> Any:
    return await world.ask(method, f"/proxy?url={quote(url, safe='')}", who or world.admin, **more)


async def test_a_hub_is_looked_at_through_the_server(looking: World, hub: Hub) -> None:
    answer = await through(looking, "https://huggingface.co/api/models/me/open")
    assert answer.status_code == 200, answer.text
    assert answer.json()["id"] == "me/open"
    assert answer.headers["content-type"].startswith("application/json")
    assert answer.headers["content-security-policy"].startswith("sandbox")
    assert "set-cookie" not in answer.headers


@pytest.mark.attack("secret")
async def test_the_token_reads_for_administrators_only(looking: World, hub: Hub) -> None:
    url = "https://huggingface.co/api/models/me/secret"
    assert (await through(looking, url)).status_code == 200
    user = await looking.user("ada")
    assert (await through(looking, url, user)).status_code in (401, 404)
    assert [one.authorized for one in hub.log] == [True, False]


@pytest.mark.attack("secret")
@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE"])
async def test_the_token_writes_for_nobody(world: World, method: str) -> None:
    with serving(Feed(body=b"{}")) as feed:
        looking = world.rebuilt(hub=HubAccess(endpoint=feed.url, token=TOKEN))
        answer = await through(looking, "https://huggingface.co/api/x?y=1", method=method, json={"a": 1})
        assert answer.json() == {}
        assert (feed.paths, feed.bodies) == (["/api/x?y=1"], [b'{"a":1}'])
        assert "authorization" not in feed.asked[0]


@pytest.mark.attack("secret")
async def test_headers_are_chosen_and_cookies_stay_on_their_side(world: World) -> None:
    with serving(
        Feed(body=b"x", headers={"Set-Cookie": "a=b", "Link": "<y>; rel=next", "X-Odd": "1"})
    ) as feed:
        looking = world.rebuilt(hub=HubAccess(endpoint=feed.url))
        headers = {"Cookie": "c=d", "X-Mine": "1", "X-Forwarded-Accept": "text/x", "Accept": "text/y"}
        answer = await through(looking, "https://huggingface.co/", headers=headers)
        assert answer.headers["link"] == "<y>; rel=next"
        assert not {"set-cookie", "x-odd"} & set(answer.headers)
        assert feed.asked[0]["accept"] == "text/x"
        assert not {"cookie", "x-mine", "authorization", "x-forwarded-accept"} & feed.asked[0].keys()


@pytest.mark.attack("ssrf")
@pytest.mark.parametrize(
    "leads_to", ["https://evil.example/", "http://localhost:1/", "http://169.254.169.254/"]
)
async def test_redirects_to_other_places_are_not_followed(world: World, leads_to: str) -> None:
    with serving(Feed(status=302, headers={"Location": leads_to})) as feed:
        looking = world.rebuilt(hub=HubAccess(endpoint=feed.url, token=TOKEN))
        answer = await through(looking, "https://huggingface.co/x")
        assert answer.status_code == 503 and "not followed" in answer.json()["message"]
        assert len(feed.asked) == 1


async def test_a_redirect_within_the_hub_is_followed_with_its_token(world: World) -> None:
    with serving(Feed(status=302, headers={"Location": "/there"}, pages={"/there": b"here"})) as feed:
        looking = world.rebuilt(hub=HubAccess(endpoint=feed.url, token=TOKEN))
        assert (await through(looking, "https://huggingface.co/x")).content == b"here"
        assert [one["authorization"] for one in feed.asked] == [f"Bearer {TOKEN}"] * 2


@pytest.mark.attack("hub")
async def test_more_than_a_page_is_not_fetched(world: World) -> None:
    with serving(Feed(body=b"x" * (LARGEST + 1))) as feed:
        answer = await through(world.rebuilt(hub=HubAccess(endpoint=feed.url)), "https://huggingface.co/x")
        assert answer.status_code == 503 and "more than" in answer.json()["message"]


@pytest.mark.attack("secret")
async def test_a_callers_own_credentials_stay_here(looking: World, hub: Hub) -> None:
    user = await looking.user("ada")
    headers = {"Cookie": "gpustack_session=abc"}
    assert (
        await through(looking, "https://huggingface.co/api/models/me/open", user, headers=headers)
    ).is_success
    assert not hub.log[0].authorized


async def test_what_a_hub_refuses_is_passed_on(looking: World, hub: Hub) -> None:
    assert (await through(looking, "https://huggingface.co/api/models/me/none")).status_code in (401, 404)


async def test_a_hub_that_is_away_is_named(world: World) -> None:
    away = world.rebuilt(hub=HubAccess(endpoint="http://127.0.0.1:1", token=TOKEN))
    answer = await through(away, "https://huggingface.co/api/models")
    assert answer.status_code == 503 and "127.0.0.1:1" in answer.json()["message"]
    assert TOKEN not in answer.text and TOKEN not in repr(away.context)


@pytest.mark.attack("access")
async def test_only_who_may_sign_in_is_let_through(looking: World, hub: Hub) -> None:
    assert (await looking.ask("GET", "/proxy?url=https://huggingface.co/")).status_code == 401
    assert (await looking.ask("GET", "/proxy", looking.admin)).status_code == 400
    answer = await through(looking, "https://evil.example/")
    assert answer.status_code == 403 and "huggingface.co" in answer.json()["message"]
    assert not hub.log


@pytest.mark.attack("hub")
async def test_a_page_without_a_length_is_cut_when_it_becomes_too_long(
    world: World, nursery: trio.Nursery
) -> None:
    """Passed on as it comes, so that nothing can be said any more but by breaking off."""

    async def flood(exchange: Exchange) -> None:
        await exchange.start_response(200, [(b"content-type", b"application/json")])
        with suppress(ClientDisconnect):
            while True:
                await exchange.send(b"x" * (1 << 20))

    (listener,) = open_listeners("127.0.0.1", 0)
    await nursery.start(HttpServer("hub", [listener], handler=flood).run)
    looking = world.rebuilt(hub=HubAccess(endpoint=f"http://127.0.0.1:{listener.getsockname()[1]}"))
    hand_off = HypercornHandOff(looking.app, bodies_on_demand=True)
    await nursery.start(hand_off.run)
    (front,) = open_listeners("127.0.0.1", 0)
    await nursery.start(HttpServer("front", [front], handler=hand_off).run)
    size = 0
    url = f"http://127.0.0.1:{front.getsockname()[1]}/proxy?url=https://huggingface.co/x"
    key = {"authorization": f"Bearer {looking.keys[looking.admin.id]}"}
    async with httpx.AsyncClient(headers=key) as client:
        with pytest.raises(httpx.RemoteProtocolError):
            async with client.stream("GET", url) as answer:
                assert answer.status_code == 200
                async for piece in answer.aiter_raw():
                    size += len(piece)
    assert LARGEST - (2 << 20) < size <= LARGEST
    assert looking.context.transport.memory.now == 0
