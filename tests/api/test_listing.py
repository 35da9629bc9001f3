"""Pages, totals and order are the same for every list."""

from __future__ import annotations

import pytest

from .world import World


@pytest.fixture
async def five(world: World) -> World:
    for number, name in enumerate(["Bert", "alice", "Carol", "dave", "Alistair"]):
        world.clock.forward(1)
        await world.model(name, replicas=number % 3, description=None if number == 2 else f"d{number}")
    return world


async def names(world: World, query: str) -> list[str]:
    return [item["name"] for item in (await world.get(f"/v1/models?{query}"))["items"]]


async def test_the_newest_comes_first(five: World) -> None:
    assert await names(five, "") == ["Alistair", "dave", "Carol", "alice", "Bert"]


@pytest.mark.parametrize("size", ["perPage", "page_size", "per_page"])
async def test_pages_are_cut_in_every_spelling(five: World, size: str) -> None:
    assert await names(five, f"page=2&{size}=2") == ["Carol", "alice"]
    assert await names(five, f"page=9&{size}=2") == []
    page = (await five.get(f"/v1/models?page=2&{size}=2"))["pagination"]
    assert page == {"page": 2, "perPage": 2, "total": 5, "totalPage": 3}


async def test_everything_comes_on_one_page_when_asked(five: World) -> None:
    listed = await five.get("/v1/models?perPage=-1&page=3")
    assert len(listed["items"]) == 5
    assert listed["pagination"] == {"page": 1, "perPage": 5, "total": 5, "totalPage": 1}


async def test_search_knows_no_case_and_its_totals_are_right(five: World) -> None:
    listed = await five.get("/v1/models?search=AL&perPage=1")
    assert [item["name"] for item in listed["items"]] == ["Alistair"]
    assert listed["pagination"] == {"page": 1, "perPage": 1, "total": 2, "totalPage": 2}


@pytest.mark.parametrize(
    ("order", "expected"),
    [
        ("name", ["alice", "Alistair", "Bert", "Carol", "dave"]),
        ("-name", ["dave", "Carol", "Bert", "Alistair", "alice"]),
        ("replicas,-created_at", ["dave", "Bert", "Alistair", "alice", "Carol"]),
        ("-description", ["Alistair", "dave", "alice", "Bert", "Carol"]),
    ],
)
async def test_lists_are_sorted_on_demand_and_unknown_comes_last(
    five: World, order: str, expected: list[str]
) -> None:
    assert await names(five, f"sort_by={order}") == expected


@pytest.mark.parametrize("order", ["nonsense", "env", "-categories"])
async def test_what_has_no_order_cannot_be_sorted_by(five: World, order: str) -> None:
    answer = await five.ask("GET", f"/v1/models?sort_by={order}", five.admin)
    assert answer.status_code == 422


async def test_a_list_names_the_revision_it_was_taken_at(five: World) -> None:
    answer = await five.ask("GET", "/v1/models", five.admin)
    assert int(answer.headers["X-Revision"]) == five.store.snapshot.revision


async def test_a_query_of_endless_fields_is_refused(five: World) -> None:
    answer = await five.ask("GET", "/v1/models?" + "&".join("a=1" for _ in range(300)), five.admin)
    assert answer.status_code == 400
