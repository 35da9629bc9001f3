"""What users ask for: deployments, instances, workers and files come, change and go."""

from __future__ import annotations

import pytest

from gpustack.domain.artifact import FileState, LoraAdapter, ModelFile
from gpustack.domain.instance import Claim, ModelInstance
from gpustack.domain.lifecycle import REPLACE, InstanceState
from gpustack.domain.model import Model
from gpustack.domain.worker import Worker
from gpustack.errors import AlreadyExists, Conflict, NotFound
from gpustack.server import deployment
from gpustack.server.lifecycle import give_up_place
from gpustack.server.report import worker_leaves

from .cluster import Cluster, hub


async def test_a_name_is_taken_once(cluster: Cluster) -> None:
    made = await deployment.create_model(cluster.store, Model(name="m", source=hub("m")))
    assert cluster.now(made) == made
    with pytest.raises(AlreadyExists, match="'m' already exists"):
        await deployment.create_model(cluster.store, Model(name="m", source=hub("other")))
    other = await deployment.create_model(cluster.store, Model(name="n", source=hub("n")))
    with pytest.raises(AlreadyExists, match="'m' already exists"):
        await deployment.update_model(cluster.store, other.id, {"name": "m"})


async def test_only_what_changes_what_runs_begins_a_generation(cluster: Cluster) -> None:
    model = await cluster.model("m", categories=("llm",))

    async def generation(**changes: object) -> int:
        return (await deployment.update_model(cluster.store, model.id, changes)).generation

    assert await generation(replicas=5, description="words", restart_on_error=False) == 1
    assert await generation(placement_strategy=model.placement_strategy) == 1
    assert await generation(backend_parameters=("-c", "4096")) == 2
    assert await generation(backend_parameters=("-c", "4096")) == 2
    assert await generation(env={"A": "b"}) == 3
    assert await generation(categories=("embedding",)) == 4, "an engine is started differently for it"


async def test_adapters_that_engines_load_while_they_run_begin_none(cluster: Cluster) -> None:
    adapters = tuple(LoraAdapter(name=name, source=hub(name)) for name in "abc")

    async def generation(of: Model, *chosen: LoraAdapter) -> int:
        return (await deployment.update_model(cluster.store, of.id, {"lora_adapters": chosen})).generation

    hot = await cluster.model("hot", backend="vllm", lora_adapters=adapters[:1])
    await cluster.instance(hot, on=await cluster.worker("a"))
    assert await generation(hot, *adapters[1:]) == 1
    assert await generation(hot) == 1
    assert await generation(hot, *adapters) == 2, "an engine that was started since then has no room for any"
    cold = await cluster.model("cold", backend="llama-box", lora_adapters=adapters[:1])
    assert await generation(cold, *adapters) == 2


async def test_no_categories_means_as_the_header_says(cluster: Cluster) -> None:
    model = await cluster.model("m", categories=("embedding",))
    same = await deployment.update_model(cluster.store, model.id, {"categories": (), "replicas": 2})
    assert (same.categories, same.generation) == (("embedding",), 1), "which has been read"
    moved = await deployment.update_model(cluster.store, model.id, {"source": hub("other")})
    assert moved.categories == (), "which is another one now"
    chosen = await deployment.update_model(
        cluster.store, model.id, {"source": hub("third"), "categories": ("llm",)}
    )
    assert chosen.categories == ("llm",)


async def test_an_edit_of_what_somebody_else_changed_is_refused(cluster: Cluster) -> None:
    model = await cluster.model("m")
    await deployment.update_model(cluster.store, model.id, {"replicas": 2}, version=model.version)
    with pytest.raises(Conflict, match="changed since it was read"):
        await deployment.update_model(cluster.store, model.id, {"replicas": 3}, version=model.version)
    with pytest.raises(NotFound):
        await deployment.update_model(cluster.store, 99, {"replicas": 3})


async def test_a_deleted_deployment_takes_what_waits_and_ends_what_runs(cluster: Cluster) -> None:
    worker = await cluster.worker("a")
    model, other = await cluster.model("m"), await cluster.model("n")
    waiting, running = await cluster.instance(model), await cluster.instance(model, on=worker)
    bystander = await cluster.instance(other, on=worker)
    assert (await deployment.delete_model(cluster.store, model.id)).name == "m"
    assert cluster.now(model) is None
    assert cluster.now(waiting) is None
    assert cluster.now(running).deleted_at == cluster.clock.now
    assert cluster.now(bystander) == bystander
    with pytest.raises(NotFound):
        await deployment.delete_model(cluster.store, model.id)


async def test_ending_twice_keeps_the_first_date(cluster: Cluster) -> None:
    instance = await cluster.instance(await cluster.model("m"), on=await cluster.worker("a"))
    await deployment.delete_instance(cluster.store, instance.id)
    first = cluster.now(instance).deleted_at
    cluster.clock.forward(5)
    await deployment.delete_instance(cluster.store, instance.id)
    assert cluster.now(instance).deleted_at == first


async def test_a_removed_worker_takes_its_records_and_its_instances_look_for_another_place(
    cluster: Cluster,
) -> None:
    gone, stays = await cluster.worker("a"), await cluster.worker("b")
    model = await cluster.model("m")
    moved, kept = await cluster.instance(model, on=gone), await cluster.instance(model, on=stays)
    broken = await cluster.instance(model, on=gone, state=InstanceState.ERROR)
    ending = await cluster.instance(model, on=gone)
    await deployment.delete_instance(cluster.store, ending.id)
    files = [await cluster.file(worker, hub("m")) for worker in (gone, stays)]
    await deployment.delete_worker(cluster.store, gone.id)
    assert (cluster.now(gone), cluster.now(ending), cluster.now(files[0])) == (None, None, None)
    for instance in (moved, broken):
        now = cluster.now(instance)
        assert (now.state, now.placement, now.port) == (InstanceState.PENDING, None, None)
        assert "worker was removed" in now.state_message
    assert (cluster.now(kept), cluster.now(files[1])) == (kept, files[1])
    with pytest.raises(NotFound):
        await deployment.delete_worker(cluster.store, gone.id)


async def test_a_file_in_use_is_not_removed_and_its_users_are_named(cluster: Cluster) -> None:
    here, elsewhere = await cluster.worker("a"), await cluster.worker("b")
    model = await cluster.model("m", source=hub("m"))
    await cluster.instance(model, on=here, name="second")
    first = await cluster.instance(model, on=here, name="first")
    await deployment.delete_instance(cluster.store, first.id)
    used, copy, unused = (
        await cluster.file(here, hub("m")),
        await cluster.file(here, hub("m"), local_dir="/mine"),
        await cluster.file(elsewhere, hub("m")),
    )
    with pytest.raises(Conflict, match="in use by first, second"):
        await deployment.delete_file(cluster.store, used.id)
    for file in (copy, unused):
        await deployment.delete_file(cluster.store, file.id)
        assert cluster.now(file).deleted_at == cluster.clock.now
    await cluster.store.write(
        lambda tx: [give_up_place(tx, i, REPLACE, "") for i in tx.all(ModelInstance).values()] and None
    )
    await deployment.delete_file(cluster.store, used.id)
    assert cluster.now(used).deleted_at is not None


@pytest.mark.parametrize(("said", "kept"), [(None, True), (False, False), (True, True)])
async def test_the_bytes_go_as_the_record_says_unless_told_otherwise(
    cluster: Cluster, said: bool | None, kept: bool
) -> None:
    file = await cluster.file(await cluster.worker("a"), hub("m"))
    await deployment.delete_file(cluster.store, file.id, said)
    assert cluster.now(file).cleanup_on_delete is kept


async def test_a_file_is_asked_for_once_on_each_worker(cluster: Cluster) -> None:
    worker, other = await cluster.worker("a"), await cluster.worker("b")

    def wish(on: Worker) -> ModelFile:
        source = hub("m")
        return ModelFile(worker_id=on.id, source=source, source_index=source.index)

    made = await deployment.create_file(cluster.store, wish(worker))
    assert made.state is FileState.DOWNLOADING
    await deployment.create_file(cluster.store, wish(other))
    with pytest.raises(AlreadyExists, match=r"Worker a has a model file of me/m/m\.gguf"):
        await deployment.create_file(cluster.store, wish(worker))
    await cluster.change(made, state=FileState.READY, resolved_paths=("/c/m.gguf",))
    await deployment.delete_file(cluster.store, made.id)
    again = await deployment.create_file(cluster.store, wish(worker))
    assert (again.id, again.deleted_at) == (made.id, None)
    assert (again.state, again.resolved_paths) == (FileState.DOWNLOADING, ())
    await cluster.store.write(lambda tx: tx.delete(Worker, other.id))
    with pytest.raises(NotFound, match="Worker 2"):
        await deployment.create_file(cluster.store, wish(other))


async def test_a_file_is_fetched_again_unless_it_is_going(cluster: Cluster) -> None:
    file = await cluster.file(
        await cluster.worker("a"), hub("m"), state=FileState.ERROR, state_message="disk full"
    )
    again = await deployment.reset_file(cluster.store, file.id)
    assert (again.state, again.state_message, again.download_progress) == (FileState.DOWNLOADING, "", 0.0)
    await deployment.delete_file(cluster.store, file.id)
    with pytest.raises(Conflict, match="being removed"):
        await deployment.reset_file(cluster.store, file.id)


async def test_what_is_placed_on_a_worker_that_is_not_there_goes_at_once(cluster: Cluster) -> None:
    worker = await cluster.worker("a")
    instance = await cluster.instance(await cluster.model("m"), on=worker, claim=Claim(ram=1))
    await cluster.store.write(lambda tx: tx.delete(Worker, worker.id))
    await deployment.delete_instance(cluster.store, instance.id)
    assert cluster.now(instance) is None


async def test_what_is_removed_while_its_worker_is_stopped_goes_at_once(cluster: Cluster) -> None:
    """Its engine has ended with the worker: nothing is left that could start again."""
    stopped = await cluster.worker("stopped")
    model = await cluster.model("m", replicas=2)
    one, other = await cluster.instance(model, on=stopped), await cluster.instance(model, on=stopped)
    await worker_leaves(cluster.store, stopped.id)
    await deployment.delete_instance(cluster.store, one.id)
    assert cluster.now(one) is None
    await deployment.delete_model(cluster.store, model.id)
    assert cluster.now(other) is None
