"""Revisions of models over HTTP: kept with each change, listed without secrets, brought back, gone with the model."""

from __future__ import annotations

from typing import Any

from gpustack.domain.model import Model
from gpustack.server.revision import MOST, revisions_of

from .world import World

MODEL = {"name": "m", "source": "local_path", "local_path": "/m.gguf", "env": {"HF_TOKEN": "hf_first"}}


async def made(world: World, **more: Any) -> int:
    answer = await world.ask("POST", "/v1/models", world.admin, json={**MODEL, **more})
    assert answer.status_code == 200, answer.text
    return int(answer.json()["id"])


async def change(world: World, key: int, **fields: Any) -> None:
    answer = await world.ask("PUT", f"/v1/models/{key}", world.admin, json=fields)
    assert answer.status_code == 200, answer.text


async def back(world: World, key: int, **body: Any) -> Any:
    return await world.ask("POST", f"/v1/models/{key}/rollback", world.admin, json=body)


async def listed(world: World, key: int) -> list[Any]:
    return [
        (one["number"], one["changed_by"], one["rolled_back_to"], one["fields"])
        for one in (await world.get(f"/v1/models/{key}/revisions"))["items"]
    ]


async def test_each_change_of_what_is_asked_for_is_a_revision_and_can_be_taken_back(world: World) -> None:
    key = await made(world)
    await change(world, key, replicas=3)
    await change(world, key, replicas=3)  # nothing
    await world.store.write(lambda tx: tx.change(Model, key, ready_replicas=2))  # not by users
    await change(world, key, env={"HF_TOKEN": "hf_second"}, replicas=5)
    secret = {"from": "***", "to": "***"}
    assert await listed(world, key) == [
        (3, "admin", None, {"env.HF_TOKEN": secret, "replicas": {"from": 3, "to": 5}}),
        (2, "admin", None, {"replicas": {"from": 1, "to": 3}}),
        (1, "admin", None, {}),
    ]
    dry = (await back(world, key, dry_run=True)).json()
    assert dry == {
        "to": 2,
        "dry_run": True,
        "fields": {"env.HF_TOKEN": secret, "replicas": {"from": 5, "to": 3}},
    }
    model = world.store.snapshot.models[key]
    assert model.replicas == 5, "a dry run writes nothing"
    assert (await back(world, key)).json() == {**dry, "dry_run": False}
    now = world.store.snapshot.models[key]
    assert (now.replicas, now.env) == (3, {"HF_TOKEN": "hf_first"})
    assert now.generation == model.generation + 1, "its engines are replaced"
    assert (await listed(world, key))[0][:3] == (4, "admin", 2)
    assert (await back(world, key)).json()["to"] == 3, "a rollback can be rolled back"
    assert (await back(world, key, to=1)).json()["to"] == 1
    events = (await world.get("/v1/audit-events?perPage=100"))["items"]
    assert [one["target_name"] for one in events if one["action"] == "model.rollback"] == ["m"] * 3
    assert "hf_first" not in str(events)


async def test_what_cannot_be_brought_back_is_told(world: World) -> None:
    key = await made(world)
    assert (await back(world, key)).status_code == 404
    assert "kept are 1" in (await back(world, key, to=7)).json()["message"]
    assert (await back(world, key, to=1)).status_code == 409
    assert (await back(world, key, too=1)).status_code == 422
    await change(world, key, name="renamed")
    await made(world)
    await world.store.write(lambda tx: tx.change(Model, key, categories=("llm",)))
    answer = await back(world, key)
    assert answer.status_code == 409 and "already exists" in answer.json()["message"]
    ann = await world.user("ann")
    assert (await world.ask("GET", f"/v1/models/{key}/revisions", ann)).status_code == 403
    assert (await world.ask("POST", f"/v1/models/{key}/rollback", ann, json={})).status_code == 403


async def test_the_last_ten_are_kept_and_a_deleted_model_takes_them_along(world: World) -> None:
    key, other = await made(world), await made(world, name="other")
    for count in range(2, 2 * MOST):
        await change(world, key, replicas=count)
    assert [number for number, *_ in await listed(world, key)] == list(range(2 * MOST - 1, MOST - 1, -1))
    await world.ask("DELETE", f"/v1/models/{key}", world.admin)
    assert await revisions_of(world.store, key) == []
    assert len(await revisions_of(world.store, other)) == 1


async def test_a_model_of_a_former_release_has_what_it_was_before_its_first_change(world: World) -> None:
    model = await world.model("old")
    assert await listed(world, model.id) == []
    await change(world, model.id, replicas=2)
    assert [number for number, *_ in await listed(world, model.id)] == [2, 1]
    assert (await back(world, model.id)).json()["fields"] == {"replicas": {"from": 2, "to": 1}}
