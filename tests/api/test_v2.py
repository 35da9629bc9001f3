"""Scripts written for GPUStack 2.x: what they send is understood, and every answer says what it ignored."""

from __future__ import annotations

import re
from datetime import date
from pathlib import Path
from typing import Any

import httpx
import pytest

import gpustack.cli.commands
from gpustack.api.resource import all_routes
from gpustack.api.v2.face import IGNORED, v2_routes
from gpustack.api.v2.resources import inference_backends
from gpustack.api.v2.resources.absent import ABSENCES
from gpustack.api.v2.resources.models import TRANSLATION
from gpustack.api.v2.translation import MOST_NAMED, Reading
from gpustack.domain.instance import ModelInstance
from gpustack.domain.lifecycle import InstanceState, Party
from gpustack.domain.model import Model
from gpustack.domain.snapshot import Snapshot
from gpustack.domain.usage import ModelUsage, Operation
from gpustack.domain.worker import Worker
from gpustack.policy.access import READING

from .stream import streaming
from .test_dashboard import used
from .world import World

OURS = all_routes()
ROUTES = v2_routes(OURS)

DEPLOYMENT = {
    "name": "qwen3",
    "source": "huggingface",
    "huggingface_repo_id": "Qwen/Qwen3-0.6B",
    "backend": "vLLM",
    "backend_parameters": ["--max-model-len=4096"],
    "cluster_id": 1,
    "enable_model_route": True,
    "generic_proxy": False,
    "extended_kv_cache": {"enabled": False, "ram_ratio": 1.2},
    "speculative_config": None,
    "gpu_selector": {"gpu_ids": [], "gpus_per_replica": 2},
    "image_name": "vllm/vllm-openai:latest",
    "revision_history_limit": 10,
    "lora_list": [{"lora_name": "qwen3:law", "lora_repo_name": "org/law", "source": "huggingface"}],
}
"""What a form of theirs sends; some of it has no meaning here."""


async def good(world: World, method: str, path: str, **more: Any) -> tuple[Any, list[str]]:
    """The JSON of an answer, and what it says that it ignored."""
    answer = await world.ask(method, path, world.admin, **more)
    assert answer.status_code == 200, answer.text
    return answer.json(), ignored(answer)


def ignored(answer: httpx.Response) -> list[str]:
    return [name for name in answer.headers.get(IGNORED, "").split(", ") if name]


async def run_a_replica(world: World, model_id: int, worker: Worker) -> None:
    """What the scheduler and the worker would write."""
    model = world.store.snapshot.models[model_id]
    placed = await world.instance(model, f"{model.name}-aB3xZ", worker)

    def work(tx: Any) -> None:
        now: ModelInstance = placed
        for state in (InstanceState.INITIALIZING, InstanceState.STARTING, InstanceState.RUNNING):
            now = tx.move(now, state, by=Party.WORKER)
        tx.change(Model, model_id, ready_replicas=1)

    await world.store.write(work)


async def test_a_script_deploys_waits_finds_the_route_scales_and_deletes(world: World) -> None:
    worker, _ = await world.worker("node-a")
    (cluster,) = (await good(world, "GET", "/v2/clusters"))[0]["items"]
    assert (cluster["id"], cluster["name"], cluster["gpus"]) == (1, "Default", 1)
    made, left_out = await good(
        world, "POST", "/v2/models", json=DEPLOYMENT, headers={"X-Organization-Id": "3"}
    )
    assert left_out == [
        "gpu_selector.gpus_per_replica",
        "image_name",
        "revision_history_limit",
        "X-Organization-Id",
    ]
    assert (made["backend"], made["cluster_id"], made["state"]) == ("vLLM", 1, "pending")
    assert (made["lora_list"][0]["lora_name"], made["lora_list"][0]["lora_repo_name"]) == ("law", "org/law")
    assert world.store.snapshot.models[made["id"]].backend == "vllm"

    path = f"/v2/models/{made['id']}"
    await run_a_replica(world, made["id"], worker)
    waited, _ = await good(world, "GET", path)
    assert (waited["state"], waited["ready_replicas"]) == ("running", 1)
    page, _ = await good(world, "GET", f"{path}/instances")
    (instance,) = page["items"]
    assert (instance["state"], instance["cluster_id"], instance["gpu_type"]) == ("running", 1, "cuda")
    assert (instance["backend"], instance["worker_advertise_address"]) == ("vLLM", worker.ip)
    world.link.logs_of[instance["id"]] = [b"ready\n"]
    logs = f"/v2/model-instances/{instance['id']}/logs"
    answer = await world.ask("GET", f"{logs}?tail=5&offset=0&limit=9&worker_id={worker.id}", world.admin)
    assert (answer.text, ignored(answer)) == ("ready\n", ["offset", "limit"])

    (route,) = (await good(world, "GET", "/v2/model-routes?name=qwen3"))[0]["items"]
    assert (route["id"], route["created_model_id"], route["ready_targets"]) == (made["id"], made["id"], 1)
    (target,) = (await good(world, "GET", f"/v2/model-route-targets?route_id={route['id']}"))[0]["items"]
    assert (target["model_id"], target["state"]) == (made["id"], "active")
    assert (await good(world, "GET", f"/v2/model-routes/{route['id']}/targets"))[0]["items"] == [target]

    scaled, left_out = await good(world, "PUT", path, json={**waited, "replicas": 3})
    assert (scaled["replicas"], scaled["degradations"], left_out) == (3, ["ratio_unmet"], [])
    assert (await world.ask("DELETE", path, world.admin)).json() is None
    assert (await world.ask("GET", path, world.admin)).status_code == 404
    assert (await good(world, "GET", "/v2/models"))[0] == {
        "items": [],
        "pagination": {"page": 1, "perPage": 100, "total": 0, "totalPage": 0},
    }


async def test_keys_have_one_scope_in_a_list_and_everything_is_a_star(world: World) -> None:
    body = {"name": "ci", "scope": ["inference"], "allowed_model_names": [], "expires_in": 0}
    made, left_out = await good(world, "POST", "/v2/api-keys", json=body)
    assert (made["scope"], made["allowed_model_names"], made["is_custom"]) == (["inference"], None, False)
    assert (made["user_name"], left_out) == ("admin", [])
    assert made["masked_value"][:-3] in made["value"]
    refused = await world.ask("GET", "/v2/users", made["value"])
    assert (refused.status_code, refused.json()["reason"]) == (403, "Forbidden")
    async with world.client(headers={"X-API-Key": made["value"]}) as client:
        assert (await client.get("/v2/my-models")).status_code == 200
    wide, _ = await good(world, "PUT", f"/v2/api-keys/{made['id']}", json={"scope": ["*"]})
    assert wide["scope"] == ["*"]
    assert (await world.ask("GET", "/v2/users", made["value"])).status_code == 200
    await world.user("ada")
    assert len((await good(world, "GET", "/v2/api-keys?user_id=*"))[0]["items"]) == 3
    own = await world.ask("POST", "/v2/api-keys", world.admin, json={"name": "own", "custom": "mine"})
    assert (own.status_code, own.json()["reason"]) == (501, "NotImplemented")
    assert "cannot be chosen" in own.json()["message"]


async def test_maintenance_is_a_cordon_and_an_account_can_be_shut_out(world: World) -> None:
    worker, _ = await world.worker("node-a")
    path = f"/v2/workers/{worker.id}"
    read, _ = await good(world, "GET", path)
    assert (read["state"], read["maintenance"]["enabled"], read["cluster_id"]) == ("ready", False, 1)
    body = {**read, "maintenance": {"enabled": True, "message": "new fans"}, "name": "other"}
    changed, left_out = await good(world, "PUT", path, json=body)
    assert (changed["state"], changed["maintenance"]["enabled"]) == ("maintenance", True)
    assert left_out == ["maintenance.message", "name"]
    assert world.store.snapshot.workers[worker.id].cordoned
    back, _ = await good(world, "PUT", path, json={"maintenance": {"enabled": False}})
    assert back["state"] == "ready"
    odd = await world.ask("PUT", path, world.admin, json={"maintenance": {"enabled": "yes"}})
    assert odd.status_code == 422

    ada = await world.user("ada")
    shut, _ = await good(world, "PATCH", f"/v2/users/{ada.id}/activation", json={"is_active": False})
    assert (shut["is_active"], shut["is_system"]) == (False, False)
    assert (await world.ask("GET", "/v2/users/me", ada)).status_code == 401


async def test_a_route_says_who_may_use_it(world: World) -> None:
    ada, bob = await world.user("ada"), await world.user("bob")
    model = await world.model("m")
    path = f"/v2/model-routes/{model.id}/access"
    body: dict[str, Any] = {"access_policy": "allowed_principals", "principals": [{"principal_id": ada.id}]}
    told, _ = await good(world, "POST", path, json=body)
    assert told == (await good(world, "GET", path))[0]
    assert (told["access_policy"], [one["username"] for one in told["items"]]) == ("allowed_users", ["ada"])
    assert [one["name"] for one in (await world.get("/v2/my-models", ada))["items"]] == ["m"]
    assert (await world.get("/v2/my-models", bob))["items"] == []
    assert (await world.ask("GET", f"/v2/my-models/{model.id}", bob)).status_code == 404
    for wrong in ([{"principal_type": "group", "principal_id": 1}], [{"principal_id": 99}], ["ada"], [True]):
        answer = await world.ask("POST", path, world.admin, json={"principals": wrong})
        assert answer.status_code == 422, answer.text
    put = f"/v2/model-routes/{model.id}"
    changed, left_out = await good(world, "PUT", put, json={"description": "d", "targets": [{"weight": 5}]})
    assert (changed["description"], left_out) == ("d", ["targets"])


async def test_a_watch_tells_the_same_documents(world: World) -> None:
    await world.model("a")
    async with streaming(world, "/v2/models?watch=true") as stream:
        assert await stream.event() == {"type": 1, "data": await world.get("/v2/models/1")}
        await world.ask("PUT", "/v2/models/1", world.admin, json={"cluster_id": 1, "replicas": 4})
        updated = await stream.event()
        shown = updated["data"]
        assert (updated["type"], shown["replicas"], shown["cluster_id"], shown["state"]) == (
            2,
            4,
            1,
            "pending",
        )
        await world.ask("DELETE", "/v2/models/1", world.admin)
        assert (await stream.event())["type"] == 3


async def test_usage_is_grouped_and_filtered_as_theirs(world: World) -> None:
    model = await world.model("m")

    def row(day: int, model_id: int, name: str, tokens: int) -> ModelUsage:
        return ModelUsage(
            date=date(2026, 1, day),
            user_id=world.admin.id,
            username="admin",
            api_key_id=1,
            model_id=model_id,
            model_name=name,
            operation=Operation.CHAT_COMPLETION,
            prompt_token_count=tokens,
            completion_token_count=1,
            request_count=1,
        )

    rows = [row(1, model.id, "m", 10), row(2, model.id, "m", 20), row(2, 99, "gone", 5)]
    await used(world, *rows)
    body: dict[str, Any] = {"start_date": "2026-01-01", "end_date": "2026-01-31", "group_by": ["model"]}
    told, _ = await good(world, "POST", "/v2/usage/breakdown", json=body)
    shown = [(one["model"]["label"], one["model"]["deleted"], one["input_tokens"]) for one in told["items"]]
    assert shown == [("m", False, 30), ("gone", True, 5)]
    assert (told["items"][0]["last_active"], told["pagination"]["total"]) == ("2026-01-02", 2)
    chosen = {"filters": {"models": [told["items"][1]["model"]]}, "group_by": ["date", "user"]}
    told, _ = await good(
        world, "POST", "/v2/usage/breakdown", json={**body, **chosen, "granularity": "month"}
    )
    assert [(one["date"]["label"], one["total_tokens"]) for one in told["items"]] == [("2026-01-01", 6)]
    for odd in ("m", {"identity": "m"}, {"identity": {"current": [1], "value": "m"}}):
        told, _ = await good(
            world, "POST", "/v2/usage/breakdown", json={**body, "filters": {"models": [odd]}}
        )
        assert told["items"] == []
    summary, _ = await good(world, "GET", "/v2/usage/summary")
    assert (summary["total_tokens"], summary["models_called"]) == (38, 2)
    meta, _ = await good(world, "GET", "/v2/usage/meta")
    assert meta["filters"]["models"][0]["label"] == "m"
    for wrong in ({"group_by": ["moon"]}, {"end_date": "x"}, {"sort_by": "moon"}, {"granularity": "hour"}):
        answer = await world.ask("POST", "/v2/usage/breakdown", world.admin, json={**body, **wrong})
        assert answer.status_code == 422, answer.text


def test_a_backend_is_written_with_its_own_placeholders() -> None:
    (face,) = inference_backends.FACES
    configs = {"1": {"image_name": "x/y", "run_command": "tiny --port {{port}} {{model_path}}"}}
    reading = Reading()
    read = face.translation.read({"backend_name": "tiny", "version_configs": configs}, {}, reading)
    assert read == {
        "name": "tiny",
        "versions": {"1": {"command": "tiny --port {port} {model_path}", "env": {}}},
    }
    assert reading.header == "version_configs.1.image_name"
    shown = face.translation.show(read, Snapshot())
    assert shown["version_configs"]["1"]["run_command"] == configs["1"]["run_command"]
    assert (shown["backend_name"], shown["backend_source"]) == ("tiny", "custom")


async def test_what_is_not_there_says_so_in_a_sentence(world: World) -> None:
    for method, path, status in (
        ("GET", "/v2/models?cluster_id=2", 404),
        ("GET", "/v2/clusters/2", 404),
        ("POST", "/v2/models/1/restart", 501),
        ("GET", "/v2/organizations/1/members", 501),
        ("POST", "/model/proxy/1/v1/score", 501),
        ("GET", "/v2/nothing", 404),
    ):
        answer = await world.ask(method, path, world.admin)
        assert (answer.status_code, set(answer.json()) >= {"code", "reason", "message"}) == (status, True), (
            path
        )
    assert (await world.ask("GET", "/v2/organizations")).status_code == 401
    assert await world.get("/auth/config") == {"external_auth": None, "is_oidc": False, "is_saml": False}
    dashboard, left_out = await good(world, "GET", "/v2/dashboard?scope=all")
    assert (dashboard["resource_counts"]["cluster_count"], left_out) == (1, ["scope"])
    listed, left_out = await good(world, "GET", "/v2/models?sort_by=-cluster_id,name&perPage=5")
    assert (listed["pagination"]["perPage"], left_out) == (5, ["sort_by=-cluster_id"])


def test_a_face_lets_nobody_do_what_its_original_does_not() -> None:
    ours = {(route.method, route.path.replace("/v1/", "/v2/", 1)): route for route in OURS}
    changed = {("GET", "/v2/models/{id}")}  # theirs is by number alone
    for route in ROUTES:
        assert route.hidden, route.path
        original = ours.get((route.method, route.path))
        if original is not None and (route.method, route.path) not in changed:
            assert (route.allow, route.scopes, route.action) == (
                original.allow,
                original.scopes,
                original.audit_action,
            )
        elif route.method != "GET" and not route.path.endswith("/{rest}"):
            assert route.action or route.scopes == READING, route.path


def test_a_sentence_of_what_is_not_there_names_commands_that_are() -> None:
    (folder,) = gpustack.cli.commands.__path__
    there = {path.stem for path in Path(folder).glob("*.py")}
    for absence in ABSENCES:
        for command in re.findall(r"gpustack ([a-z]+)", absence.sentence):
            assert command in there, absence.sentence


def test_what_says_nothing_is_not_named_and_odd_names_do_not_reach_the_header() -> None:
    reading = Reading()
    TRANSLATION.read(
        {"gather": None, "roles": [], "x": {"a": {"enabled": False, "n": 3}}, "y": 1}, {}, reading
    )
    assert reading.unread == {"y": 1}
    deep: Any = {}
    for _ in range(1000):
        deep = {"a": deep}
    TRANSLATION.read({"z": deep}, {}, reading)
    assert [*reading.unread] == ["y", "z"]
    for number in range(MOST_NAMED):
        reading.ignore(f"n{number}")
    reading.ignore("a\r\nSet-Cookie: b")
    assert reading.header.endswith("and 1 more")
    assert reading.header.isprintable()


@pytest.mark.parametrize("value", [7, None, [1], {"gpu_ids": "x"}, "text"])
def test_no_value_of_a_translated_field_breaks_the_reading(value: Any) -> None:
    for row in TRANSLATION.differences:
        if row.reads is not None and row.field != "cluster_id":
            row.reads(value, Reading())
