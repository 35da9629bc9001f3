"""The pages that show the API come from the package alone, or say how to get them."""

from __future__ import annotations

import re

import pytest

from gpustack.api.docs_pages import ASSETS, PAGES, STATIC

from .world import World

BUILT = all((STATIC / name).is_file() for name, place in ASSETS.items() if place == STATIC)


@pytest.mark.parametrize("path", ["/docs", "/redoc"])
async def test_a_page_is_shown_or_the_way_to_it(world: World, path: str) -> None:
    answer = await world.ask("GET", path)
    if not BUILT:
        assert answer.status_code == 503
        assert "pip install ." in answer.json()["message"]
        return
    assert answer.status_code == 200
    assert answer.headers["Content-Type"] == "text/html; charset=utf-8"
    policy = answer.headers["Content-Security-Policy"]
    assert policy.startswith("default-src 'none'; script-src 'self';")
    assert answer.headers["X-Frame-Options"] == "DENY"
    for name in re.findall(r'(?:src|href)="([^"]+)"', answer.text):
        assert (await world.ask("GET", name)).status_code == 200


@pytest.mark.attack("cross-site")
@pytest.mark.parametrize("page", ["swagger.html", "redoc.html"])
def test_pages_load_only_what_is_served_here_and_hold_no_script(page: str) -> None:
    text = (PAGES / page).read_text()
    for link in re.findall(r'(?:src|href)="([^"]+)"', text):
        assert link.removeprefix("/docs/assets/") in ASSETS
    assert not re.search(r"<script[^>]*>[^<]", text)
    assert "style=" not in text


async def test_our_own_scripts_are_served(world: World) -> None:
    answer = await world.ask("GET", "/docs/assets/swagger.js")
    assert answer.status_code == 200
    assert answer.headers["Content-Type"] == "text/javascript; charset=utf-8"
    assert "/openapi.json" in answer.text


@pytest.mark.attack("traversal")
@pytest.mark.parametrize(
    "name", ["../docs_pages.py", "..%2fdocs_pages.py", "docs_pages.py", "%2e%2e/app.py", "swagger.html", "\0"]
)
async def test_no_other_file_is_served(world: World, name: str) -> None:
    async with world.client() as client:
        answer = await client.get(f"/docs/assets/{name}".replace("\0", "%00"))
    assert answer.status_code == 404


@pytest.mark.parametrize("path", ["/docs", "/redoc", "/openapi.json", "/docs/assets/swagger.js"])
async def test_all_of_it_can_be_switched_off(world: World, path: str) -> None:
    assert (await world.rebuilt(docs=False).ask("GET", path)).status_code == 404
