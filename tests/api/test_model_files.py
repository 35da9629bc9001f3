"""Model files: fetched ahead of need, fetched again, removed with or without their bytes."""

from __future__ import annotations

from typing import Any

import pytest

from gpustack.domain.artifact import ModelFile

from .world import SOURCE, World

ASKED = {"worker_id": 1, "source": "local_path", "local_path": "/models/tiny.gguf"}


@pytest.fixture
async def worker(world: World) -> str:
    """The credential of worker 1."""
    _, credential = await world.worker("node")
    return credential


async def create(world: World, **more: Any) -> Any:
    return await world.ask("POST", "/v1/model-files", world.admin, json={**ASKED, **more})


async def test_a_file_is_asked_for(world: World, worker: str) -> None:
    answer = await create(world, local_dir=None)
    made = answer.json()
    assert answer.status_code == 200
    assert (made["state"], made["worker_id"], made["local_dir"]) == ("downloading", 1, "")
    assert (made["source"], made["local_path"]) == ("local_path", "/models/tiny.gguf")
    assert made["source_index"] == SOURCE.index
    assert made["cleanup_on_delete"] is True
    assert (made["size"], made["download_progress"]) == (None, None)


async def test_the_same_file_is_asked_for_once(world: World, worker: str) -> None:
    await create(world)
    assert (await create(world)).status_code == 409
    assert (await create(world, local_dir="/other")).status_code == 200


@pytest.mark.parametrize(
    ("change", "status"),
    [
        ({"worker_id": 9}, 404),
        ({"worker_id": None}, 422),
        ({"local_path": None}, 422),
        ({"source": "huggingface"}, 422),
        ({"source": "model_scope"}, 422),
    ],
)
async def test_a_wrong_ask_is_refused(world: World, worker: str, change: dict[str, Any], status: int) -> None:
    assert (await create(world, **change)).status_code == status


async def test_a_file_in_use_stays_and_says_who_uses_it(world: World, worker: str) -> None:
    await create(world)
    await world.instance(await world.model("m"), "m-1", world.store.snapshot.workers[1])
    answer = await world.ask("DELETE", "/v1/model-files/1", world.admin)
    assert answer.status_code == 409
    assert "m-1" in answer.json()["message"]


@pytest.mark.parametrize(
    ("query", "cleanup"), [("", True), ("?cleanup=false", False), ("?cleanup=true", True)]
)
async def test_deleting_says_whether_the_bytes_go_too(
    world: World, worker: str, query: str, cleanup: bool
) -> None:
    await create(world)
    told = (await world.ask("DELETE", f"/v1/model-files/1{query}", world.admin)).json()
    assert told["kept"] is True, "a local path is somebody else's, whatever is asked for"
    asked = world.store.snapshot.files[1]
    assert asked.deleted_at is not None
    assert asked.cleanup_on_delete is cleanup
    gone = await world.ask("PUT", "/v1/model-files/1/report", worker, json={"gone": True})
    assert gone.status_code == 200
    assert not world.store.snapshot.files


async def test_a_file_is_fetched_again(world: World, worker: str) -> None:
    await create(world)
    report = {"state": "error", "state_message": "disk full", "download_progress": 40}
    await world.ask("PUT", "/v1/model-files/1/report", worker, json=report)
    assert (await world.get("/v1/model-files/1"))["state_message"] == "disk full"
    answer = await world.ask("POST", "/v1/model-files/1/reset", world.admin)
    assert (answer.json()["state"], answer.json()["download_progress"]) == ("downloading", 0)


async def test_an_administrator_changes_only_what_is_theirs(world: World, worker: str) -> None:
    await create(world)
    body = {"cleanup_on_delete": False, "state": "ready", "resolved_paths": ["/etc/passwd"]}
    after = (await world.ask("PUT", "/v1/model-files/1", world.admin, json=body)).json()
    assert (after["cleanup_on_delete"], after["state"], after["resolved_paths"]) == (False, "downloading", [])


async def test_a_worker_sees_and_reports_only_its_own(world: World, worker: str) -> None:
    _, other = await world.worker("other")
    await create(world)
    assert (await world.get("/v1/model-files", other))["items"] == []
    assert (await world.ask("PUT", "/v1/model-files/1/report", other, json={})).status_code == 403
    report = {"state": "ready", "size": 3, "download_progress": 100, "resolved_paths": ["/cache/tiny.gguf"]}
    assert (await world.ask("PUT", "/v1/model-files/1/report", worker, json=report)).status_code == 200
    listed = (await world.get("/v1/model-files", worker))["items"]
    assert (listed[0]["state"], listed[0]["resolved_paths"]) == ("ready", ["/cache/tiny.gguf"])


@pytest.mark.parametrize(("search", "found"), [("TINY", 1), ("models/", 1), ("cache", 0), ("nothing", 0)])
async def test_files_are_found_by_source_and_path(world: World, worker: str, search: str, found: int) -> None:
    await create(world)
    listed = await world.get(f"/v1/model-files?search={search}&worker_id=1")
    assert listed["pagination"]["total"] == found


async def test_a_worker_names_the_files_it_needs_any_number_of_times(world: World, worker: str) -> None:
    body = {"source": {"kind": "local_path", "local_path": "/models/tiny.gguf"}, "local_dir": ""}
    first = await world.ask("POST", "/v1/workers/1/files", worker, json=body)
    again = await world.ask("POST", "/v1/workers/1/files", worker, json=body)
    assert first.json() == again.json() == {"id": 1, "holders": []}
    assert world.store.snapshot.files[1].source == SOURCE
    other, _ = await world.worker("other")
    assert (await world.ask("POST", f"/v1/workers/{other.id}/files", worker, json=body)).status_code == 403


async def test_a_file_that_was_to_go_stays_when_it_is_needed_again(world: World, worker: str) -> None:
    await create(world)
    await world.ask("DELETE", "/v1/model-files/1", world.admin)
    body = {"source": {"kind": "local_path", "local_path": "/models/tiny.gguf"}}
    assert (await world.ask("POST", "/v1/workers/1/files", worker, json=body)).json() == {
        "id": 1,
        "holders": [],
    }
    assert world.store.snapshot.get(ModelFile, 1).deleted_at is None  # type: ignore[union-attr]


async def ready(world: World, worker: str, key: int, **more: Any) -> None:
    """A file that the worker has fetched."""
    await create(world, source="huggingface", huggingface_repo_id=f"me/m{key}", **more)
    report = {"state": "ready", "size": key << 30, "download_progress": 100, "fetched_from": "other"}
    assert (await world.ask("PUT", f"/v1/model-files/{key}/report", worker, json=report)).status_code == 200


async def test_unused_files_are_evicted_and_pinned_ones_stay(world: World, worker: str) -> None:
    for key in (1, 2, 3):
        await ready(world, worker, key, pinned=key == 1)
    body = {"worker_id": 1, "bytes": 1, "dry_run": True}
    told = (await world.ask("POST", "/v1/model-files/evict", world.admin, json=body)).json()
    assert ([file["id"] for file in told["items"]], told["freed"]) == ([2], 2 << 30)
    assert world.store.snapshot.files[2].deleted_at is None
    misspelt = {"worker_id": 1, "byte": 1}  # without its size all would go
    refused = await world.ask("POST", "/v1/model-files/evict", world.admin, json=misspelt)
    assert refused.status_code == 422
    assert "byte: is not known here; there are worker_id, bytes, dry_run" in refused.text
    told = (await world.ask("POST", "/v1/model-files/evict", world.admin, json={"worker_id": 1})).json()
    assert ([file["id"] for file in told["items"]], told["kept"]) == ([2, 3], "1 source is pinned")
    assert [file.id for file in world.store.snapshot.files.values() if file.deleted_at is None] == [1]
    await world.ask("PUT", "/v1/model-files/1", world.admin, json={"pinned": False})
    told = (await world.ask("POST", "/v1/model-files/evict", world.admin, json={"worker_id": 1})).json()
    assert [file["id"] for file in told["items"]] == [1]
    assert (
        await world.ask("POST", "/v1/model-files/evict", world.admin, json={"worker_id": 7})
    ).status_code == 404
    assert (
        await world.ask("POST", "/v1/model-files/evict", worker, json={"worker_id": 1})
    ).status_code == 403


async def test_what_a_worker_evicted_is_no_record_any_more(world: World, worker: str) -> None:
    await ready(world, worker, 1)
    report = {"evicted": "Removed to make room for me/x, which needed 3 GiB more"}
    assert (await world.ask("PUT", "/v1/model-files/1/report", worker, json=report)).status_code == 200
    assert world.store.snapshot.files == {}


async def test_how_fast_a_file_comes_is_shown_while_it_does(world: World, worker: str) -> None:
    await create(world)
    report = {"state": "downloading", "size": 1000, "download_progress": 40, "download_speed": 100.0}
    await world.ask("PUT", "/v1/model-files/1/report", worker, json=report)
    shown = await world.get("/v1/model-files/1")
    assert (shown["download_speed"], shown["download_eta"]) == (100.0, 6.0)
    await world.ask("PUT", "/v1/model-files/1/report", worker, json={"state": "ready", "fetched_from": "hub"})
    shown = await world.get("/v1/model-files/1")
    assert (shown["download_speed"], shown["download_eta"], shown["fetched_from"]) == (None, None, "hub")


async def test_a_worker_is_told_who_else_has_what_it_is_about_to_fetch(world: World, worker: str) -> None:
    other, credential = await world.worker("other")
    await ready(world, worker, 1)
    body = {"source": {"kind": "huggingface", "huggingface_repo_id": "me/m1"}, "holders": True}
    told = (await world.ask("POST", f"/v1/workers/{other.id}/files", credential, json=body)).json()
    (holder,) = told["holders"]
    giver = world.store.snapshot.workers[1]
    assert (holder["name"], holder["host"], holder["port"], holder["fetching"]) == (
        "node",
        giver.ip,
        giver.port,
        False,
    )
    assert holder["ticket"].startswith(f"gpustack_files_{other.id}_")
    again = (await world.ask("POST", "/v1/workers/1/files", worker, json=body)).json()
    assert again["holders"] == []
