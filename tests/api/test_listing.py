"""Pages, totals and order are the same for every list."""

from __future__ import annotations

import logging

import pytest

from gpustack.api import wire
from tests.stumble import Stumble

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


LISTS = [
    ("/v1/models", "/v1/models/2", "name", "m2"),
    ("/v1/model-instances", "/v1/model-instances/2", "name", "i2"),
    ("/v1/models/1/instances", "/v1/model-instances/2", "name", "i2"),
    ("/v1/workers", "/v1/workers/2", "name", "w2"),
    ("/v1/gpu-devices", "/v1/gpu-devices/w2:cuda:0", "id", "w2:cuda:0"),
]


@pytest.mark.parametrize(("path", "one", "field", "bad"), LISTS, ids=[path for path, *_ in LISTS])
async def test_a_record_that_cannot_be_shown_whole_keeps_no_other_from_being_shown(
    world: World,
    path: str,
    one: str,
    field: str,
    bad: str,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    model = await world.model("m1")
    for number in (1, 2, 3):
        worker, _ = await world.worker(f"w{number}")
        await world.instance(model, f"i{number}", worker)
        if number > 1:
            await world.model(f"m{number}")
    whole = await world.get(path)
    Stumble(wire, "_dates", lambda record: record.id == 2, times=1000).put(monkeypatch)
    with caplog.at_level(logging.ERROR):
        found = await world.get(f"{path}?sort_by={field}")
        shown = await world.get(one)
    assert found["pagination"] == whole["pagination"]
    before = {item["id"]: item for item in whole["items"]}
    for item in found["items"]:
        told = before[item["id"]]
        if item[field] == bad:
            assert item == shown
            assert item.keys() == told.keys()
            plain = {key: value for key, value in item.items() if not isinstance(value, dict | list)}
            assert all(value in (None, told[key]) for key, value in plain.items())
        else:
            assert item == told
    assert caplog.text.count("Set a row aside") == 1, caplog.text
    assert len(found["items"]) == 3


async def test_halves_of_characters_are_written_out(world: World) -> None:
    """A record in memory may hold what its row does not."""
    await world.model("caf\udce9")
    assert [item["name"] for item in (await world.get("/v1/models"))["items"]] == ["caf\\xe9"]
