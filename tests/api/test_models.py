"""Deployments: created, changed, listed for both kinds of clients, refused in the published order."""

from __future__ import annotations

from typing import Any

import pytest

from .world import World

GGUF = {
    "name": "qwen3-4b",
    "source": "huggingface",
    "huggingface_repo_id": "Qwen/Qwen3-4B-GGUF",
    "huggingface_filename": "*Q4_K_M*.gguf",
    "backend": "llama-box",
    "replicas": 2,
    "placement_strategy": "binpack",
    "priority": -7,
    "preempts": True,
    "preemptible": False,
    "cpu_offloading": True,
    "distributed_inference_across_workers": True,
    "backend_parameters": ["--ctx-size=16384", "--parallel=8"],
    "worker_selector": {"os": "linux"},
    "env": {"A": "1"},
}


FOLDER = {"huggingface_repo_id": "org/model", "huggingface_filename": None}


async def create(world: World, **more: Any) -> Any:
    return await world.ask("POST", "/v1/models", world.admin, json={**GGUF, **more})


async def test_a_deployment_comes_back_as_it_was_sent(world: World) -> None:
    answer = await create(world)
    assert answer.status_code == 200
    made = answer.json()
    assert {name: made[name] for name in GGUF} == GGUF
    assert (made["id"], made["ready_replicas"], made["restart_on_error"], made["categories"]) == (
        1,
        0,
        True,
        [],
    )
    assert made["local_path"] is None
    assert await world.get("/v1/models/1") == made


async def test_what_clients_may_not_write_is_ignored(world: World) -> None:
    made = (await create(world, id=99, ready_replicas=7, meta={"x": 1}, created_at="then", unknown=1)).json()
    assert (made["id"], made["ready_replicas"], made["meta"]) == (1, 0, {})


async def test_fields_of_other_sources_are_dropped(world: World) -> None:
    made = (await create(world, local_path="/x.gguf", ollama_library_model_name="y")).json()
    assert (made["local_path"], made["ollama_library_model_name"]) == (None, None)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"name": ""}, "name: must not be empty"),
        ({"name": "  "}, "name: must not be empty"),
        ({"name": "a\nb"}, "name: must not contain control characters"),
        ({"source": "floppy"}, "source: must be one of huggingface, model_scope, ollama_library, local_path"),
        ({"huggingface_repo_id": None}, "huggingface_repo_id: must be provided when source is huggingface"),
        ({"source": "model_scope"}, "model_scope_model_id: must be provided"),
        ({"source": "ollama_library"}, "ollama_library_model_name: must be provided"),
        ({"source": "local_path"}, "local_path: must be provided"),
        ({"source": "local_path", "local_path": "models/x"}, "local_path: must be an absolute path"),
        ({"huggingface_filename": None}, "huggingface_filename must be provided when using the llama-box"),
        ({"replicas": -1}, "replicas: must be from 0 to 1000"),
        ({"replicas": True}, "replicas: must be a whole number"),
        ({"categories": ["llm", "poet"]}, "categories[1]: must be one of"),
        ({"env": {"A=B": "1"}}, "env: 'A=B' is not a name of an environment variable"),
        ({"env": {"A": 1}}, "env.A: must be text"),
        ({"backend_parameters": "--x"}, "backend_parameters: must be a list"),
        ({"backend": "custom"}, "Backend 'custom' needs a command"),
    ],
)
async def test_a_document_that_makes_no_sense_is_refused(
    world: World, change: dict[str, Any], message: str
) -> None:
    answer = await create(world, **change)
    assert answer.status_code == 422
    assert answer.json()["message"].startswith(f"1 validation errors:\n{message}"), answer.text


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"backend": "vlm"}, "Backend 'vlm' is not known here; this version has ascend-mindie, custom,"),
        ({"huggingface_filename": "m-*.safetensors"}, "m-*.safetensors is no GGUF file"),
        (
            {"source": "local_path", "local_path": "/m/pytorch_model.bin", "backend": "llama-box"},
            "/m/pytorch_model.bin is no GGUF file",
        ),
        (
            {"backend": "vllm", "env": {"GPUSTACK_BACKEND_DEPS": "--index-url=http://10.0.0.1"}},
            "GPUSTACK_BACKEND_DEPS has '--index-url=http://10.0.0.1', which is no requirement such as",
        ),
        (
            {"backend": "vllm", "backend_version": "../1"},
            "backend_version '../1' is not a version such as 0.11.0",
        ),
    ],
)
async def test_what_this_version_cannot_run_is_refused_with_what_there_is(
    world: World, change: dict[str, Any], message: str
) -> None:
    """Rather than kept pending; also when an existing deployment is changed to it, or only considered."""
    answer = await create(world, **change)
    assert answer.status_code == 422
    assert message in answer.json()["message"]
    before = (await create(world)).json()
    answer = await world.ask("PUT", f"/v1/models/{before['id']}", world.admin, json={**before, **change})
    assert answer.status_code == 422
    assert message in answer.json()["message"]


async def test_a_command_that_needs_no_files_may_name_any_source(world: World) -> None:
    source = {"source": "model_scope", "model_scope_model_id": "me/m"}
    assert (await create(world, **source, backend="custom", command="serve --port {port}")).status_code == 200


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"gpu_selector": {"gpu_ids": ["node-a"]}}, "GPU id 'node-a' is not <worker name>:<type>:<index>"),
        ({"gpu_selector": {"gpu_ids": ["node-a:abacus:0"]}}, "GPU id 'node-a:abacus:0' is not"),
        ({"gpu_selector": {"gpu_ids": ["node-b:cuda:0"]}}, "Worker 'node-b' of GPU id"),
        ({"gpu_selector": {"gpu_ids": ["node-a:cuda:0"] * 2}}, "gpu_selector names a GPU twice"),
        (
            {
                "gpu_selector": {"gpu_ids": ["node-a:cuda:0"]},
                "backend": "MindIE",
                "cpu_offloading": None,
                **FOLDER,
            },
            "Backend ascend-mindie needs GPUs of type npu, and cuda is selected",
        ),
        (
            {"backend": "vllm", "backend_parameters": ["--port=1"], "cpu_offloading": None, **FOLDER},
            "Backend parameter --port cannot be set",
        ),
        (
            {"gpu_selector": {"gpu_ids": ["node-a:cuda:0"]}, "backend_parameters": ["--tensor-split", "1,1"]},
            "Backend parameter --tensor-split cannot be used together with a GPU selection",
        ),
        (
            {"gpu_selector": {"gpu_ids": ["node-a:cuda:0"]}, "backend_parameters": ["-ngl", "0"]},
            "Backend parameter --gpu-layers is 0, which contradicts the GPU selection",
        ),
        ({"backend_parameters": ["--gpu-layers=1000"]}, "Backend parameter --gpu-layers must be an integer"),
        ({"backend_parameters": ["--port 80"]}, "Backend parameter --port cannot be set"),
    ],
)
async def test_a_choice_that_cannot_work_is_refused(
    world: World, change: dict[str, Any], message: str
) -> None:
    await world.worker("node-a")
    answer = await create(world, **change)
    assert answer.status_code == 400
    assert answer.json()["message"].startswith(message)


async def test_faults_are_told_in_the_published_order(world: World) -> None:
    """Schema, then name, then GPU choice, then parameters."""
    await create(world)
    wrong: dict[str, Any] = {
        "replicas": -1,
        "gpu_selector": {"gpu_ids": ["nonsense"]},
        "backend_parameters": ["--port=80"],
    }
    told = []
    for mended in (
        {},
        {"replicas": 1},
        {"name": "other"},
        {"gpu_selector": None},
        {"backend_parameters": []},
    ):
        wrong.update(mended)
        told.append((await create(world, **wrong)).status_code)
    assert told == [422, 409, 400, 400, 200]


async def test_a_stopped_deployment_may_name_gpus_that_are_not_there_yet(world: World) -> None:
    selector = {"gpu_ids": ["later:cuda:0"]}
    made = await create(world, replicas=0, gpu_selector=selector)
    assert made.status_code == 200
    assert made.json()["gpu_selector"] == selector
    assert (await world.ask("PUT", "/v1/models/1", world.admin, json={"replicas": 1})).status_code == 400


async def test_a_name_is_taken_once(world: World) -> None:
    await create(world)
    again = await create(world)
    assert again.status_code == 409
    assert again.json()["message"].startswith("Model 'qwen3-4b' already exists. Please choose")
    await create(world, name="other")
    renamed = await world.ask("PUT", "/v1/models/2", world.admin, json={"name": "qwen3-4b"})
    assert renamed.status_code == 409


async def test_an_update_changes_only_what_is_sent(world: World) -> None:
    before = (await create(world)).json()
    after = (await world.ask("PUT", "/v1/models/1", world.admin, json={"replicas": 0})).json()
    assert {n for n in after if after[n] != before[n]} <= {"replicas", "updated_at"}
    assert after["replicas"] == 0


async def test_what_was_read_can_be_written_back_unchanged(world: World) -> None:
    before = (await create(world, categories=["embedding"])).json()
    after = await world.ask("PUT", "/v1/models/1", world.admin, json=before)
    assert after.status_code == 200
    assert after.json() == before


async def test_null_takes_a_setting_away(world: World) -> None:
    await create(world)
    body = {"worker_selector": None, "env": None, "backend_parameters": None, "cpu_offloading": None}
    after = (await world.ask("PUT", "/v1/models/1", world.admin, json=body)).json()
    assert (after["worker_selector"], after["env"], after["backend_parameters"]) == ({}, {}, [])
    assert after["cpu_offloading"] is None


async def test_tolerations_and_anti_affinity_come_back_as_they_were_sent(world: World) -> None:
    wanted: dict[str, Any] = {
        "labels": {"team": "search"},
        "tolerations": [
            {"key": "gpu", "operator": "Exists", "effect": "NoExecute", "toleration_seconds": 60}
        ],
        "anti_affinity": {
            "required": [{}],
            "preferred": [{"models": ["llama*"], "topology_key": "topology.kubernetes.io/zone"}],
        },
    }
    made = (await create(world, **wanted)).json()
    assert made["labels"] == wanted["labels"]
    assert made["tolerations"] == [{"value": "", **wanted["tolerations"][0]}]
    own = {"models": [], "match_labels": {}, "topology_key": "kubernetes.io/hostname"}
    assert made["anti_affinity"]["required"] == [own]
    again = (await world.ask("PUT", "/v1/models/1", world.admin, json=made)).json()
    assert (again["anti_affinity"], again["generation"]) == (made["anti_affinity"], 1)
    nothing: dict[str, Any] = {"tolerations": None, "anti_affinity": {"required": []}}
    cleared = (await world.ask("PUT", "/v1/models/1", world.admin, json=nothing)).json()
    assert (cleared["tolerations"], cleared["anti_affinity"], cleared["generation"]) == ([], None, 1)


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"tolerations": [{"value": "x"}]}, "operator must be Exists"),
        ({"tolerations": [{"key": "a", "operator": "Exists", "value": "x"}]}, "takes no value"),
        ({"tolerations": [{"key": "a", "toleration_seconds": 5}]}, "for effect NoExecute only"),
        ({"tolerations": [{"key": "a", "efect": "NoSchedule"}]}, "efect: is not known here"),
        ({"anti_affinity": {"required": [{"topology_key": ""}]}}, "topology_key must have"),
        ({"anti_affinity": {"preferred": [{"model": "a"}]}}, "model: is not known here"),
    ],
)
async def test_what_would_mean_something_else_is_refused(
    world: World, fields: dict[str, Any], said: str
) -> None:
    refused = await create(world, **fields)
    assert refused.status_code == 422
    assert said in refused.text


async def test_part_of_a_source_can_be_changed(world: World) -> None:
    await create(world)
    body = {"huggingface_filename": "*Q8_0*.gguf"}
    after = (await world.ask("PUT", "/v1/models/1", world.admin, json=body)).json()
    assert after["huggingface_repo_id"] == "Qwen/Qwen3-4B-GGUF"
    assert after["huggingface_filename"] == "*Q8_0*.gguf"
    assert after["generation"] == 2


async def test_the_former_flags_stand_for_categories(world: World) -> None:
    made = (await create(world, embedding_only=True, reranker=False)).json()
    assert (made["categories"], made["embedding_only"], made["reranker"]) == (["embedding"], True, False)


async def test_deleting_answers_null(world: World) -> None:
    await create(world)
    answer = await world.ask("DELETE", "/v1/models/1", world.admin)
    assert (answer.status_code, answer.text) == (200, "null")
    for method in ("GET", "PUT", "DELETE"):
        again = await world.ask(method, "/v1/models/1", world.admin, json={})
        assert (again.status_code, again.json()["message"]) == (404, "Model 1 does not exist")


async def test_categories_select_and_the_empty_word_stands_for_none(world: World) -> None:
    await world.model("chat", categories=("llm",))
    await world.model("both", categories=("llm", "embedding"))
    await world.model("raw")

    async def names(query: str) -> set[str]:
        return {item["name"] for item in (await world.get(f"/v1/models?{query}"))["items"]}

    assert await names("categories=llm") == {"chat", "both"}
    assert await names("categories=embedding&categories=") == {"both", "raw"}
    assert await names("categories[]=llm&search=BOT") == {"both"}


async def test_one_list_answers_both_kinds_of_clients(world: World) -> None:
    await world.model("serving", ready_replicas=1, meta={"n_ctx": 8192})
    await world.model("waiting")
    listed = await world.get("/v1/models?perPage=1")
    assert [item["name"] for item in listed["items"]] == ["waiting"]
    assert listed["pagination"] == {"page": 1, "perPage": 1, "total": 2, "totalPage": 2}
    assert listed["object"] == "list"
    assert listed["data"] == [
        {"id": "serving", "object": "model", "created": 1767323045, "owned_by": "gpustack", "meta": None}
    ]


async def test_people_see_models_without_what_runs_them(world: World) -> None:
    ada = await world.user("ada")
    await world.model("serving", ready_replicas=1, env={"HF_TOKEN": "hidden"})
    listed = await world.ask("GET", "/v1/models", ada)
    assert "hidden" not in listed.text
    assert listed.json()["items"][0]["name"] == "serving"
    assert listed.json()["data"][0]["id"] == "serving"
    one = await world.ask("GET", "/v1/models/1", ada)
    assert one.json() == listed.json()["items"][0]


async def test_clients_of_openai_read_one_model_by_its_name(world: World) -> None:
    ada = await world.user("ada")
    await world.model("serving", ready_replicas=1, meta={"n_ctx": 4096})
    await world.model("stopped")
    for path in ("/v1/models", "/v1-openai/models"):
        read = await world.ask("GET", f"{path}/serving", ada)
        assert read.json() == (await world.ask("GET", "/v1/models", ada)).json()["data"][0]
        assert (await world.ask("GET", f"{path}/serving?with_meta=true", ada)).json()["meta"] == {
            "n_ctx": 4096
        }
        for other in ("stopped", "none"):
            assert (await world.ask("GET", f"{path}/{other}", ada)).status_code == 404


async def test_a_name_may_hold_slashes_however_a_client_spells_them(world: World) -> None:
    ada = await world.user("ada")
    await world.model("Qwen/Qwen3-0.6B-GGUF", ready_replicas=1)
    await world.model("a/b/instances", ready_replicas=1)
    for path in ("/v1/models", "/v1-openai/models"):
        for name in ("Qwen/Qwen3-0.6B-GGUF", "Qwen%2FQwen3-0.6B-GGUF", "Qwen%2fQwen3-0.6B-GGUF/"):
            read = await world.ask("GET", f"{path}/{name.removesuffix('/')}", ada)
            assert (read.status_code, read.json()["id"]) == (200, "Qwen/Qwen3-0.6B-GGUF"), read.text
        assert (await world.ask("GET", f"{path}/a/b/instances", ada)).json()["id"] == "a/b/instances"
        missing = await world.ask("GET", f"{path}/Qwen/none", ada)
        assert missing.status_code == 404
        assert "Qwen/none" in missing.json()["error"]["message"]


async def test_a_name_that_is_a_number_is_a_name_first(world: World) -> None:
    await world.model("first", ready_replicas=1)
    await world.model("1", ready_replicas=1)
    ada = await world.user("ada")
    assert (await world.ask("GET", "/v1/models/1", ada)).json()["id"] == "1"
    assert (await world.ask("GET", "/v1/models/2", ada)).json()["name"] == "1"


async def test_a_worker_does_not_read_what_others_run(world: World) -> None:
    """What it runs itself comes with its assignments; environments hold tokens."""
    await world.model("m", env={"HF_TOKEN": "hidden"})
    _, credential = await world.worker("node")
    for path in ("/v1/models/1", "/v1/models", "/v1/models?watch=true"):
        answer = await world.ask("GET", path, credential)
        assert answer.status_code == 403
        assert "hidden" not in answer.text


async def test_all_instances_of_a_model_are_listed(world: World) -> None:
    model, other = await world.model("m"), await world.model("n")
    for number in range(101):
        await world.instance(model, f"m-{number}")
    await world.instance(other, "n-0")
    listed = await world.get(f"/v1/models/{model.id}/instances?perPage=5")
    assert len(listed["items"]) == 101
    assert {item["model_id"] for item in listed["items"]} == {model.id}
    assert listed["pagination"]["total"] == 101


@pytest.mark.parametrize(
    ("query", "names"),
    [
        ("", ["chat", "embed"]),
        ("categories[]=embedding", ["embed"]),
        ("categories=llm", ["chat"]),
        ("embedding_only=true", ["embed"]),
        ("image_only=true", []),
    ],
)
async def test_openai_clients_list_what_serves(world: World, query: str, names: list[str]) -> None:
    ada = await world.user("ada")
    await world.model("chat", ready_replicas=1, categories=("llm",), meta={"n_ctx": 1})
    await world.model("embed", ready_replicas=2, categories=("embedding",))
    await world.model("waiting", categories=("llm",))
    listed = await world.get(f"/v1-openai/models?{query}", ada)
    assert [item["id"] for item in listed["data"]] == names
    assert all(item["meta"] is None for item in listed["data"])
    with_meta = await world.get("/v1-openai/models?with_meta=true", ada)
    assert with_meta["data"][0]["meta"] == {"n_ctx": 1}


async def test_the_openai_list_speaks_of_errors_in_its_own_form(world: World) -> None:
    answer = await world.ask("GET", "/v1-openai/models")
    assert answer.json() == {
        "error": {"message": "Invalid authentication credentials", "code": 401, "type": "Unauthorized"}
    }
    wrong = await world.ask("GET", "/v1-openai/models?with_meta=perhaps", world.admin)
    assert wrong.json()["error"]["type"] == "Invalid"


async def test_an_editor_who_was_overtaken_changes_nothing_unseen(world: World) -> None:
    """Two edits of different fields both hold: each writes only what it sends."""
    await create(world)
    await world.ask("PUT", "/v1/models/1", world.admin, json={"replicas": 5})
    await world.ask("PUT", "/v1/models/1", world.admin, json={"description": "mine"})
    model = world.store.snapshot.models[1]
    assert (model.replicas, model.description) == (5, "mine")
