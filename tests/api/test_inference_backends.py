"""Backends of administrators over HTTP: added, changed, taken over by deployments, kept while they are used."""

from __future__ import annotations

from typing import Any

from .world import World

TINY = {
    "name": "Tiny Server",
    "description": "Says hello.",
    "versions": {"1.0": {"command": "tiny --port {port}", "env": {"TOKEN_FILE": "/x"}}},
    "health_path": "/up",
    "categories": ["llm"],
    "metrics": {"tiny:running": "gpustack:num_requests_running"},
    "install": "pip install tiny",
}
MODEL = {"name": "m", "source": "local_path", "local_path": "/m", "backend": "tiny-server", "replicas": 1}
PATH = "/v1/inference-backends"


async def put(world: World, path: str, **changes: Any) -> Any:
    answer = await world.ask("PUT", path, world.admin, json=changes)
    assert answer.status_code == 200, answer.text
    return answer.json()


async def test_it_comes_back_as_it_was_sent_with_the_only_version_as_default(world: World) -> None:
    made = (await world.ask("POST", PATH, world.admin, json=TINY)).json()
    assert {name: made[name] for name in TINY} == TINY
    assert (made["default_version"], made["used_by"]) == ("1.0", [])
    assert (await world.get(PATH))["items"] == [made]
    again = await world.ask("POST", PATH, world.admin, json={**TINY, "name": "tiny.server"})
    assert again.status_code == 422 and "are one name" in again.json()["message"]
    assert (await world.ask("POST", PATH, world.admin, json=TINY)).status_code == 409


async def test_all_that_is_wrong_is_said_at_once(world: World) -> None:
    wrong = {
        **TINY,
        "name": "VLLM!",
        "versions": {"1": {"env": {"A": 1}}, "2": {"command": 3}},
        "categories": ["poet"],
    }
    answer = await world.ask("POST", PATH, world.admin, json=wrong)
    assert answer.status_code == 422
    for sentence in (
        "versions.1.command: is missing",
        "versions.1.env.A: must be text",
        "versions.2.command: must be",
    ):
        assert sentence in answer.json()["message"]
    wrong = {
        **TINY,
        "name": "a/b",
        "versions": {"1": {"command": "x"}},
        "metrics": {"a b": "x", "c": "gpustack:none"},
    }
    answer = await world.ask("POST", PATH, world.admin, json=wrong)
    assert answer.status_code == 422
    for sentence in (
        "name: must be",
        "must contain {port}",
        "metrics: 'a b'",
        "metrics.c: 'gpustack:none' is not one",
    ):
        assert sentence in answer.json()["message"]


async def test_a_deployment_runs_what_the_backend_said_until_its_engines_are_replaced(world: World) -> None:
    backend = (await world.ask("POST", PATH, world.admin, json=TINY)).json()
    model = (await world.ask("POST", "/v1/models", world.admin, json=MODEL)).json()
    assert (model["backend"], model["categories"], model["generation"]) == ("Tiny Server", ["llm"], 1)
    assert model["backend_spec"]["command"] == "tiny --port {port}"
    at, of_model = f"{PATH}/{backend['id']}", f"/v1/models/{model['id']}"
    assert (await world.get(at))["used_by"] == ["m"]

    await put(world, at, versions={"1.0": {"command": "tiny --better --port {port}"}})
    scaled = await put(world, of_model, **{**model, "replicas": 3})
    assert (scaled["backend_spec"], scaled["generation"]) == (model["backend_spec"], 1)
    changed = await put(world, of_model, env={"A": "1"})
    assert (changed["backend_spec"]["command"], changed["generation"]) == ("tiny --better --port {port}", 2)

    await put(world, at, health_path="/well", roll=True)
    rolled = await world.get(of_model)
    assert (rolled["backend_spec"]["health_path"], rolled["generation"]) == ("/well", 3)


async def test_what_is_in_use_is_neither_removed_nor_renamed_nor_loses_its_version(world: World) -> None:
    backend = (await world.ask("POST", PATH, world.admin, json=TINY)).json()
    await world.ask("POST", "/v1/models", world.admin, json={**MODEL, "backend_version": "1.0"})
    at = f"{PATH}/{backend['id']}"
    answer = await world.ask("DELETE", at, world.admin)
    assert answer.status_code == 409 and "'Tiny Server' is in use by m;" in answer.json()["message"]
    answer = await world.ask("PUT", at, world.admin, json={"name": "Other"})
    assert answer.status_code == 409 and "cannot be renamed" in answer.json()["message"]
    changes = {"versions": {"2.0": {"command": "x {port}"}}, "default_version": "2.0"}
    answer = await world.ask("PUT", at, world.admin, json=changes)
    assert answer.status_code == 409 and "Version '1.0' of backend" in answer.json()["message"]
    await world.ask("DELETE", "/v1/models/1", world.admin)
    assert (await world.ask("DELETE", at, world.admin)).status_code == 200
    assert (await world.get(PATH))["items"] == []


async def test_a_deployment_of_another_backend_forgets_it(world: World) -> None:
    await world.ask("POST", PATH, world.admin, json=TINY)
    await world.ask("POST", "/v1/models", world.admin, json=MODEL)
    changed = await put(world, "/v1/models/1", backend="llama_cpp", local_path="/m.gguf")
    assert (changed["backend"], changed["backend_spec"]) == ("llama-box", None)


async def test_it_is_for_administrators_and_its_environment_is_not_in_the_audit_trail(world: World) -> None:
    assert (await world.ask("GET", PATH, await world.user("ann"))).status_code == 403
    await world.ask("POST", PATH, world.admin, json={**TINY, "env": {"HIDDEN": "swordfish"}})
    events = await world.get("/v1/audit-events")
    (event,) = [e for e in events["items"] if e["action"].startswith("inference-backend")]
    assert event["target_name"] == "Tiny Server" and "swordfish" not in str(event)
