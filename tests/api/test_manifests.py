"""Manifests over HTTP: exported, applied as a whole or not at all, with every fault named."""

from __future__ import annotations

from typing import Any

from gpustack.api import manifest
from gpustack.domain.access import ApiKey, Limits, User
from gpustack.domain.backend import BackendVersion, InferenceBackend
from gpustack.domain.model import Model

from .world import World

PATH = "/v1/manifests"
MODEL = {"kind": "Model", "name": "m", "source": "local_path", "local_path": "/m.gguf"}


async def applied(world: World, *documents: Any, **more: Any) -> dict[str, Any]:
    answer = await world.ask("POST", PATH, world.admin, json={"documents": documents, **more})
    assert answer.status_code == 200, answer.text
    found: dict[str, Any] = answer.json()
    return found


async def changes(world: World, *documents: Any, **more: Any) -> list[tuple[str, str, list[str]]]:
    found = (await applied(world, *documents, **more))["objects"]
    return [(one["name"], one["change"], sorted(one["fields"])) for one in found]


async def faults(world: World, *documents: Any) -> list[tuple[int, str, str]]:
    before = world.store.snapshot.tables
    answer = await world.ask("POST", PATH, world.admin, json={"documents": documents})
    assert answer.status_code == 422, answer.text
    assert world.store.snapshot.tables == before, "nothing is written by half"
    found = answer.json()
    assert found["reason"] == "Invalid" and len(found["message"].splitlines()) == 1 + len(found["faults"])
    return [(one["document"], one["field"], one["sentence"]) for one in found["faults"]]


async def filled(world: World) -> None:
    """Something of every kind, with secrets."""
    ann = await world.user("ann", limits=Limits(requests_per_minute=5))
    await world.store.write(
        lambda tx: tx.insert(
            InferenceBackend(
                name="tiny",
                versions={name: BackendVersion(command="tiny --port {port}") for name in ("1.0", "2")},
                default_version="2",
                env={"TINY_TOKEN": "t0ps3cret", "MODE": "no"},
            )
        )
    )
    key = world.store.snapshot.find(ApiKey, user_id=ann.id)
    assert key is not None
    await world.store.write(lambda tx: tx.change(ApiKey, key.id, limits=Limits(tokens_per_day=7)))
    await applied(
        world,
        {
            **MODEL,
            "replicas": 3,
            "env": {"HF_TOKEN": "hf_abcdefgh", "DEBUG": "1"},
            "access_policy": "allowed_users",
            "allowed_users": ["ann", "admin"],
            "lora_adapters": [{"name": "a", "source": "local_path", "local_path": "/a.gguf"}],
            "limits": {"tokens_per_day": 9},
            "worker_selector": {"zone": "no"},
        },
        {
            "kind": "Model",
            "name": "other",
            "source": "huggingface",
            "huggingface_repo_id": "a/b",
            "huggingface_filename": "b.gguf",
            "backend_parameters": ["--hf-token=sesame", "--ctx-size=1"],
            "categories": ["llm"],
        },
        {"kind": "Model", "name": "third", "source": "local_path", "local_path": "/t", "backend": "tiny"},
    )


async def test_what_is_exported_and_applied_again_changes_nothing_and_holds_no_secret(world: World) -> None:
    await filled(world)
    before = world.store.snapshot
    found = (await world.get(PATH))["documents"]
    assert [(one["kind"], one.get("name") or one["user"]) for one in found] == [
        ("Backend", "tiny"),
        ("Model", "m"),
        ("Model", "other"),
        ("Model", "third"),
        ("Limits", "ann"),
        ("Limits", "ann"),
    ]
    text = str(found)
    assert all(secret not in text for secret in ("t0ps3cret", "hf_abcdefgh", "sesame", "***"))
    assert all(
        name not in one for one in found for name in ("id", "created_at", "generation", "ready_replicas")
    )
    model = found[1]
    assert model["secrets_kept"] == ["env.HF_TOKEN"] and model["env"] == {"DEBUG": "1"}
    assert model["allowed_users"] == ["admin", "ann"], "by name"
    assert found[2]["secrets_kept"] == ["backend_parameters"]
    assert found[3] == {
        "kind": "Model",
        "name": "third",
        "source": "local_path",
        "local_path": "/t",
        "backend": "tiny",
    }
    assert {change for _, change, _ in await changes(world, *found)} == {"unchanged"}
    assert world.store.snapshot.tables == before.tables
    whole = (await world.get(f"{PATH}?secrets=true"))["documents"]
    assert "hf_abcdefgh" in str(whole) and "secrets_kept" not in str(whole)
    assert {change for _, change, _ in await changes(world, *whole)} == {"unchanged"}
    assert (await world.get(PATH))["documents"] == found


async def test_a_whole_export_rebuilds_another_cluster(world: World) -> None:
    await filled(world)
    whole = (await world.get(f"{PATH}?secrets=true"))["documents"]
    for model in list(world.store.snapshot.models):
        await world.ask("DELETE", f"/v1/models/{model}", world.admin)
    await world.store.write(lambda tx: [tx.delete(one) for one in tx.all(InferenceBackend).values()])
    await world.store.write(
        lambda tx: [tx.change(User, one.id, limits=None) for one in tx.all(User).values()]
    )
    assert [change for _, change, _ in await changes(world, *reversed(whole))] == [
        "unchanged",  # of a key
        "changed",
        *["created"] * 4,
    ]
    assert (await world.get(f"{PATH}?secrets=true"))["documents"] == whole


async def test_a_field_that_is_left_out_gets_its_default_and_a_secret_that_is_kept_stays(
    world: World,
) -> None:
    await filled(world)
    one = {**MODEL, "env": {"DEBUG": "2"}, "secrets_kept": ["env.HF_TOKEN"]}
    dry = await applied(world, one, dry_run=True)
    (found,) = dry["objects"]
    assert dry["dry_run"] and found["change"] == "changed"
    assert found["fields"]["replicas"] == {"from": 3, "to": 1}
    assert found["fields"]["env.DEBUG"] == {"from": "1", "to": "2"}
    assert "env.HF_TOKEN" not in found["fields"]
    model = world.store.snapshot.find(Model, name="m")
    assert model is not None and model.replicas == 3, "a dry run writes nothing"
    assert (await applied(world, one))["objects"] == dry["objects"]
    model = world.store.snapshot.find(Model, name="m")
    assert model is not None and model.env == {"DEBUG": "2", "HF_TOKEN": "hf_abcdefgh"}
    (gone,) = (await applied(world, MODEL, dry_run=True))["objects"]
    assert gone["fields"]["env.HF_TOKEN"] == {"from": "***", "to": None}


async def test_every_fault_of_every_document_is_named_at_once(world: World) -> None:
    found = await faults(
        world,
        {**MODEL, "replicsa": 2, "replicas": "two", "env": {"A": 1}},
        {"kind": "Modle", "name": "x"},
        {"name": "x"},
        "text",
        MODEL,
        {"kind": "Limits", "limits": {"requests_per_minut": 1}},
        {**MODEL, "name": "n", "lora_adapters": [{"name": "a", "source": "local_path", "localpath": "/a"}]},
        {**MODEL, "name": "o", "env": {"HF_TOKEN": "***"}, "backend_parameters": ["--api-key=***"]},
        MODEL,
        {**MODEL, "name": "p", "local_path": "not/absolute"},
    )
    where = [(place, field) for place, field, _ in found]
    assert where == [
        (0, "replicsa"),
        (0, "replicas"),
        (0, "env.A"),
        (1, "kind"),
        (2, "kind"),
        (3, ""),
        (4, "name"),
        (5, "user"),
        (5, "limits.requests_per_minut"),
        (6, "lora_adapters[0].localpath"),
        (7, "env.HF_TOKEN"),
        (7, "backend_parameters"),
        (8, "name"),
        (9, "local_path"),
    ]
    said = {where: sentence for *where, sentence in [(f"{p}.{f}", s) for p, f, s in found] for where in where}
    assert "did you mean replicas?" in said["0.replicsa"] and "did you mean Model?" in said["1.kind"]
    assert "secrets_kept" in said["7.env.HF_TOKEN"]


async def test_what_is_wrong_with_what_is_stored_is_named_too_and_nothing_is_written(world: World) -> None:
    found = await faults(
        world,
        {"kind": "Backend", "name": "tiny", "versions": {"1": {"command": "t --port {port}"}}},
        {**MODEL, "backend": "tiny", "name": "good"},
        {**MODEL, "name": "for-bob", "allowed_users": ["admin", "bob"]},
        {**MODEL, "name": "there", "local_path": "m.gguf"},
        {**MODEL, "name": "gpu", "gpu_selector": {"gpu_ids": ["gone:cuda:0"]}},
        {**MODEL, "name": "new", "secrets_kept": ["env.HF_TOKEN", "command"]},
        {"kind": "Limits", "user": "bob", "limits": {"tokens_per_day": 1}},
        {"kind": "Limits", "user": "admin", "key": "nokey"},
        {"kind": "Backend", "name": "bad", "versions": {"1": {"command": "no-port"}}},
        {**MODEL, "backend": "bad", "name": "of-a-bad-backend"},
    )
    assert [(place, field) for place, field, _ in found] == [
        (2, "allowed_users[1]"),
        (3, "local_path"),
        (4, ""),
        (5, "secrets_kept"),
        (5, "secrets_kept"),
        (6, "user"),
        (7, "key"),
        (8, "versions.1.command"),
    ]
    assert "Worker 'gone'" in found[2][2]


async def test_it_is_for_administrators_and_each_change_is_in_the_audit_trail(world: World) -> None:
    ann = await world.user("ann")
    assert (await world.ask("GET", PATH, ann)).status_code == 403
    assert (await world.ask("POST", PATH, ann, json={"documents": []})).status_code == 403
    await applied(world, {**MODEL, "env": {"A": "secret-value"}}, dry_run=True)
    await applied(world, {**MODEL, "env": {"A": "secret-value"}}, {**MODEL, "name": "n"})
    await applied(world, {**MODEL, "replicas": 4, "env": {"A": "secret-value"}}, {**MODEL, "name": "n"})
    events = (await world.get("/v1/audit-events?perPage=100"))["items"]
    done = [(one["action"], one["target_name"]) for one in events if one["outcome"] == "done"]
    assert sorted(done) == [
        ("manifest.apply", ""),
        ("manifest.apply", ""),
        ("model.create", "m"),
        ("model.create", "n"),
        ("model.update", "m"),
    ]
    assert "secret-value" not in str(events)
    (changed,) = (one for one in events if one["action"] == "model.update")
    assert changed["details"]["changes"] == {"replicas": {"from": 1, "to": 4}}
    assert changed["actor_name"] == "admin"


async def test_fields_that_hold_objects_come_back_as_they_were(world: World) -> None:
    asked = {
        **MODEL,
        "priority": 5,
        "tolerations": [{"key": "gpu", "operator": "Exists"}],
        "anti_affinity": {"required": [{"match_labels": {"app": "x"}}]},
        "labels": {"app": "y"},
    }
    await applied(world, asked)
    (found,) = (await world.get(PATH))["documents"]
    assert (
        found["priority"] == 5 and found["tolerations"][0]["key"] == "gpu" and found["labels"] == {"app": "y"}
    )
    assert await changes(world, found) == [("m", "unchanged", [])]
    assert await changes(world, asked) == [("m", "unchanged", [])]
    wrong = {**MODEL, "tolerations": [{"kye": "gpu"}]}
    ((_, field, _), *_) = await faults(world, wrong)
    assert field.startswith("tolerations[0]")


async def test_a_mask_is_a_fault_wherever_one_may_stand_and_only_there(world: World) -> None:
    backend = {"kind": "Backend", "name": "b", "versions": {"1": {"command": "b", "env": {"T": "***"}}}}
    assert [field for _, field, _ in await faults(world, backend)] == ["versions.1"]
    stars = {**MODEL, "description": "rated ***"}
    assert await changes(world, stars) == [("m", "created", [])]
    (found,) = (await world.get(PATH))["documents"]
    assert await changes(world, found) == [("m", "unchanged", [])]


async def test_no_more_is_looked_at_than_what_is_told_of_faults(world: World) -> None:
    """To guess what was meant takes long enough to keep the server from everything else."""
    wrong = {**MODEL, **{f"field{n}": 1 for n in range(3000)}}
    found = await faults(world, wrong, {**wrong, "name": "n"})
    assert len(found) == manifest.MOST_FAULTS + 1
    assert found[-1][:2] == (1, "") and "was not looked at" in found[-1][2]


async def test_secrets_are_exported_to_keys_that_may_change_things_and_the_trail_tells_of_it(
    world: World,
) -> None:
    await filled(world)
    made = (
        await world.ask("POST", "/v1/api-keys", world.admin, json={"name": "r", "scopes": ["read"]})
    ).json()
    refused = await world.ask("GET", f"{PATH}?secrets=true", made["value"])
    assert refused.status_code == 403 and "needs the scope management" in refused.json()["message"]
    assert (await world.ask("GET", PATH, made["value"])).status_code == 200
    assert (await world.ask("GET", f"{PATH}?secrets=true", world.admin)).status_code == 200
    await world.context.trail.flush()
    found = (await world.get("/v1/audit-events?action=manifest.export"))["items"]
    assert sorted(one["outcome"] for one in found) == ["done", "refused"], (
        "of the one without secrets nothing is told"
    )
