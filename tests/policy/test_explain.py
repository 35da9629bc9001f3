from __future__ import annotations

import attrs
import pytest

from gpustack.domain.artifact import ModelSource, SourceKind
from gpustack.domain.backend import BackendSpec
from gpustack.domain.instance import Claim, Placement
from gpustack.domain.model import GpuSelector
from gpustack.domain.unit import GIB
from gpustack.domain.worker import Condition, WorkerState, WorkerStatus
from gpustack.policy import look, schedule, verdict
from gpustack.policy.explain import explain
from gpustack.policy.placement import PlacementRequest, Unschedulable
from tests.stumble import Stumble

from .shapes import facts_of
from .worlds import RPC_BUILD, ask, gpu, instance, model, worker, world

SMALL = facts_of("llama-3.2-1b")
LARGE = facts_of("llama-3.3-70b")


def test_every_worker_gets_a_verdict_of_its_own() -> None:
    of = model(worker_selector={"zone": "b"})
    snapshot = world(
        worker(1, cordoned=True), worker(2, labels={"zone": "b"}), worker(3, ram=1, labels={"zone": "b"})
    )
    told = explain(of, instance(1, of), snapshot, SMALL)
    assert [(v.worker, v.fits) for v in told.workers] == [
        ("node-b", True),
        ("node-c", False),
        ("node-a", False),
    ]
    assert told.workers[0].sentences[0].startswith("fits on worker node-b, CPU (")
    assert "short by" in told.workers[1].sentences[0]
    (bind,) = told.workers[1].binds
    assert (bind.rule, bind.of) == ("memory", "memory") and bind.short and bind.need
    assert bind.need - bind.short == bind.free
    assert told.workers[2].sentences == ("worker node-a is cordoned", "worker node-a is not labelled zone=b")
    assert [bind.rule for bind in told.workers[2].binds] == ["cordon", "labels"]
    assert told.fits
    assert told.sentence.startswith("fits on worker node-b, CPU (")


def test_one_that_waits_is_told_the_smallest_change() -> None:
    of = model()
    told = explain(of, instance(1, of), world(worker(ram=8)), LARGE)
    assert not told.fits
    assert told.smallest_change is not None
    assert told.smallest_change in told.sentence


def test_one_that_is_placed_says_where_and_what_it_holds() -> None:
    of = model()
    claim = Claim(ram=GIB, vram={0: 2 * GIB, 1: 2 * GIB})
    placement = Placement(worker_id=1, gpu_indexes=(0, 1), claim=claim, note="as wished")
    there = attrs.evolve(instance(1, of, on=1), placement=placement)
    told = explain(of, there, world(worker(gpus=[gpu(0), gpu(1)]), there), SMALL)
    assert told.sentence == "placed on worker node-a, GPUs 0, 1 (4.0 GiB of video memory, 1.0 GiB of memory)"
    assert told.note == "as wished"


def test_a_header_that_cannot_be_read_is_the_reason() -> None:
    of = model()
    told = explain(of, instance(1, of), world(worker()), None, fault="There is no file /models/m.gguf")
    assert (told.fits, told.sentence) == (False, "There is no file /models/m.gguf")


def test_a_model_no_engine_serves_says_what_to_change() -> None:
    of = model(source=ModelSource(kind=SourceKind.HUGGING_FACE, huggingface_repo_id="a/b"))
    told = explain(of, instance(1, of), world(worker()), None)
    assert told.engine is None
    assert "name a .gguf file" in told.sentence


def test_a_backend_that_is_data_is_told_by_its_own_name() -> None:
    spec = BackendSpec(backend="My Engine", version="1", command="my-engine --port {port}")
    of = model(backend="My Engine", backend_spec=spec)
    assert explain(of, instance(1, of), world(worker()), SMALL).engine == "My Engine"


def test_what_no_worker_could_take_even_empty_is_final() -> None:
    of = model()
    assert explain(of, instance(1, of), world(worker(ram=8)), LARGE).final
    labelled = model(worker_selector={"zone": "b"})
    assert explain(labelled, instance(1, labelled), world(worker()), SMALL).final
    picked = model(gpu_selector=GpuSelector(gpu_ids=("node-a:cuda:0", "node-b:cuda:0")))
    assert explain(picked, instance(1, picked), world(worker(), worker(2)), SMALL).final


def test_what_others_ending_or_a_worker_coming_back_would_mend_is_not_final() -> None:
    of, other = model(), model(id=2, name="other")
    held = attrs.evolve(instance(2, other, on=1), placement=Placement(worker_id=1, claim=Claim(ram=60 * GIB)))
    full = world(worker(ram=64), held)
    silent = worker(condition=Condition(state=WorkerState.NOT_READY))
    unmeasured = worker(status=WorkerStatus())
    for snapshot, facts in (
        (full, LARGE),
        (world(worker(cordoned=True)), SMALL),
        (world(silent), SMALL),
        (world(unmeasured), SMALL),
        (world(), SMALL),
    ):
        told = explain(of, instance(1, of), snapshot, facts)
        assert (told.fits, told.final) == (False, False), told.sentence
    assert not explain(of, instance(1, of), world(worker()), SMALL).final


def test_a_header_that_reading_again_may_give_is_not_final() -> None:
    of = model()
    for lasting in (False, True):
        told = explain(of, instance(1, of), world(worker()), None, fault="No", lasting=lasting)
        assert told.final is lasting
    nobody = model(source=ModelSource(kind=SourceKind.HUGGING_FACE, huggingface_repo_id="a/b"))
    assert explain(nobody, instance(1, nobody), world(worker()), None).final
    assert not explain(nobody, instance(1, nobody), world(worker()), None, fault="The hub is away").final


def test_a_gang_is_told_with_the_devices_and_claims_of_each_member() -> None:
    of = model(cpu_offloading=False)
    there = [worker(key, gpus=[gpu(0, size)], build=RPC_BUILD) for key, size in ((1, 32), (2, 24))]
    told = explain(of, instance(1, of), world(*there), LARGE)
    assert told.fits and [one.fits for one in told.workers] == [False, False]
    main, follower = told.sentence.split("; ")
    assert main.startswith("fits on worker node-a, GPU 0 (") and follower.startswith("worker node-b, GPU 0 (")
    assert told.note == "Divided among workers over RPC: node-a leads and uses 1 GPU of node-b"
    refused = attrs.evolve(of, distributed_inference_across_workers=False)
    alone = explain(refused, instance(1, refused), world(*there), LARGE)
    assert alone.final and alone.smallest_change == (
        "allow it to be divided among workers (distributed_inference_across_workers)"
    )


def test_a_worker_that_cannot_be_looked_at_is_told_beside_the_others(monkeypatch: pytest.MonkeyPatch) -> None:
    for module, name in ((look, "objections"), (verdict, "filters_against")):
        Stumble(module, name, lambda ask, worker, *_, **__: worker.id == 1, times=1000).put(monkeypatch)
    of = model()
    told = explain(of, instance(1, of), world(worker(1), worker(2)), SMALL)
    assert [one.fits for one in told.workers] == [True, None]
    assert told.workers[1].sentences == (
        "worker node-a could not be looked at for a fault that nobody foresaw (Unforeseen)",
    )
    assert told.sentence.startswith("fits on worker node-b")
    crowded = explain(of, instance(1, of), world(worker(1), worker(2, ram=1)), SMALL)
    assert not crowded.fits and not crowded.final
    assert "worker node-a could not be looked at" in crowded.sentence


def test_for_one_worker_that_cannot_be_judged_not_each_is_asked_alone(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    asked: list[PlacementRequest] = []

    def counted(request: PlacementRequest, *_: object) -> str:
        asked.append(request)
        return "wait"

    monkeypatch.setattr(schedule, "smallest_change", counted)
    Stumble(look, "objections", lambda ask, worker, *_, **__: worker.id == 1, times=1000).put(monkeypatch)
    workers = [worker(key, name=f"w{key}", ram=1) for key in range(1, 21)]
    found, faults = schedule.place_and_faults(ask(model(1), SMALL), world(*workers))
    assert isinstance(found, Unschedulable)
    assert list(faults) == [1]
    assert len(asked) == 1
