"""A redirect leads only to the web, never inside, and credentials stay with the host they are for."""

from __future__ import annotations

import pytest

from gpustack.remote.http import BadResponse, open_client
from gpustack.remote.redirect import headers_for, next_url, refuse_inner, refuse_inner_blocking
from tests.server.feed import Feed, serving

HUB = "https://hub.example/org/model"


@pytest.mark.parametrize(
    ("location", "url"),
    [
        ("https://cdn.example/x?sig=1", "https://cdn.example/x?sig=1"),
        ("/else", "https://hub.example/else"),
        ("other", "https://hub.example/org/other"),
        ("//cdn.example/y", "https://cdn.example/y"),
    ],
)
def test_a_redirect_may_be_relative(location: str, url: str) -> None:
    assert next_url(HUB, location) == url


@pytest.mark.attack("ssrf")
@pytest.mark.parametrize(
    "location",
    [
        None,
        "",
        "file:///etc/passwd",
        "ftp://x/y",
        "http://cdn.example/x",
        "https://[::1",
        "https://h:99999/",
    ],
)
def test_a_redirect_elsewhere_is_refused(location: str | None) -> None:
    with pytest.raises(BadResponse):
        next_url(HUB, location)


def test_from_plain_http_one_may_go_to_either() -> None:
    assert next_url("http://hub.example/", "http://cdn.example/x") == "http://cdn.example/x"
    assert next_url("http://hub.example/", "https://cdn.example/x") == "https://cdn.example/x"


@pytest.mark.attack("secret")
@pytest.mark.parametrize(
    ("url", "kept"),
    [
        (HUB, True),
        ("https://hub.example:443/x", True),
        ("https://hub.example:8443/x", False),
        ("http://hub.example/x", False),
        ("https://cdn.hub.example/x", False),
    ],
)
def test_credentials_go_to_their_own_host_only(url: str, kept: bool) -> None:
    headers = headers_for(url, HUB, {"Authorization": "Bearer x", "Range": "bytes=0-1"})
    assert headers["Range"] == "bytes=0-1"
    assert ("Authorization" in headers) is kept


@pytest.mark.attack("ssrf")
@pytest.mark.parametrize(
    "url",
    [
        "http://127.0.0.1/x",
        "http://localhost/x",
        "http://169.254.169.254/latest/meta-data",
        "http://metadata.google.internal/",
        "http://10.0.0.1/x",
        "http://[::1]/x",
        "http://[fe80::1]/x",
        "http://[::ffff:127.0.0.1]/x",
        "http://0.0.0.0/x",
        "http://2130706433/x",
        "http://0177.0.0.1/x",
        "http://0x7f.1/x",
        "http://127.1/x",
        "http://１２７.０.０.１/x",
        "http://localhost./x",
        "http://METADATA.google.internal./x",
        "http://[::127.0.0.1]/x",
        "http://[64:ff9b::7f00:1]/x",
        "http://[2002:7f00:1::]/x",
        "http://[::ffff:a9fe:a9fe]/x",
        "http://[fec0::1]/x",
        "http://[fd00:ec2::254]/x",
        "http://100.64.0.1/x",
        "http://100.100.100.200/latest/meta-data",
        "http://168.63.129.16/x",
        "http://224.0.0.1/x",
        "http://user@127.0.0.1/x",
        "http://8.8.8.8@127.0.0.1/x",
    ],
)
async def test_a_public_hub_cannot_send_us_inside(url: str) -> None:
    with pytest.raises(BadResponse):
        await refuse_inner(url, "https://93.184.216.34/x", None)


@pytest.mark.parametrize(
    ("origin", "url"),
    [
        ("http://127.0.0.1:1/x", "http://127.0.0.1:2/x"),
        ("http://127.0.0.1:1/x", "http://10.0.0.2/x"),
        ("http://10.0.0.1/x", "http://192.168.0.1/x"),
        ("https://93.184.216.34/x", "https://93.184.216.35/x"),
        ("http://169.254.1.1/x", "http://169.254.1.1/y"),
        ("https://93.184.216.34/x", "https://no.such.host.invalid/x"),
    ],
)
async def test_an_inner_hub_may_send_us_to_its_like(origin: str, url: str) -> None:
    await refuse_inner(url, origin, None)


@pytest.mark.attack("ssrf")
async def test_not_even_an_inner_hub_may_send_us_to_the_metadata_service() -> None:
    with pytest.raises(BadResponse):
        await refuse_inner("http://169.254.169.254/", "http://10.0.0.1/", None)
    with pytest.raises(BadResponse):
        await refuse_inner("http://127.0.0.1/", "http://10.0.0.1/", None)


@pytest.mark.attack("ssrf")
@pytest.mark.parametrize("answered", ["93.184.216.34", None])
async def test_a_name_that_now_means_this_machine_is_trusted_by_who_answered(answered: str | None) -> None:
    with pytest.raises(BadResponse):
        await refuse_inner("http://127.0.0.1:1/x", "http://localhost:2/x", answered)
    with pytest.raises(BadResponse):
        refuse_inner_blocking("http://127.0.0.1:1/x", "http://localhost:2/x", answered)


async def test_a_hub_that_answered_inside_may_send_us_to_its_like() -> None:
    await refuse_inner("http://127.0.0.1:1/x", "http://hub.example/x", "127.0.0.1")
    await refuse_inner("http://10.0.0.2/x", "http://hub.example/x", "::ffff:10.0.0.1")


@pytest.mark.attack("ssrf")
async def test_who_answered_is_told_by_the_connection_and_is_nobody_behind_a_proxy(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with serving(Feed(body=b"here")) as feed:
        async with open_client() as client:
            assert (await client.request("GET", feed.url)).address == "127.0.0.1"
            assert (await client.request("GET", feed.url)).address == "127.0.0.1"  # the same connection
        monkeypatch.setenv("http_proxy", feed.url)
        monkeypatch.delenv("no_proxy", raising=False)
        monkeypatch.delenv("NO_PROXY", raising=False)
        async with open_client() as client:
            answer = await client.request("GET", "http://hub.example/x")
            assert (answer.status, answer.address) == (200, None)
