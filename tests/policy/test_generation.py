"""Which edits of a deployment are followed by what runs."""

from __future__ import annotations

import attrs
import pytest

from gpustack.domain.artifact import LoraAdapter, ModelSource, SourceKind
from gpustack.domain.instance import ModelInstance, Placement, Subordinate
from gpustack.domain.lifecycle import InstanceState
from gpustack.domain.model import Model, edited
from gpustack.policy.generation import taken_up

FOLDER = ModelSource(kind=SourceKind.LOCAL_PATH, local_path="/models/m")
A = LoraAdapter(name="a", source=FOLDER)
B = LoraAdapter(name="b", source=FOLDER)


def deployed(**fields: object) -> Model:
    return Model(name="m", source=FOLDER, **{"backend": "vllm", "lora_adapters": (A,), **fields})  # type: ignore[arg-type]


def instance(**fields: object) -> ModelInstance:
    given = {"placement": Placement(worker_id=1), **fields}
    return ModelInstance(name="m-1", model_id=1, model_name="m", source=FOLDER, **given)  # type: ignore[arg-type]


GANG = Placement(worker_id=1, subordinates=(Subordinate(worker_id=2),))


@pytest.mark.parametrize(
    ("before", "runs", "follows"),
    [
        (deployed(), instance(), True),
        (deployed(), instance(placement=GANG), False),
        (deployed(), instance(placement=GANG, generation=0), True),
        (deployed(), instance(state=InstanceState.ERROR), False),
        (deployed(), instance(state=InstanceState.STARTING), True),
        (deployed(lora_adapters=()), instance(), False),
        (deployed(lora_adapters=(), backend_parameters=("--enable-lora",)), instance(), True),
        (deployed(backend="llama-box"), instance(), False),
        (deployed(backend="custom", command="vllm serve {model_path}"), instance(), False),
        (deployed(backend=None), instance(), False),
        (deployed(backend=None), instance(resolved_path="/models/m"), True),
        (deployed(backend=None), instance(resolved_path="/models/m.gguf"), False),
    ],
)
def test_another_list_of_adapters_is_followed_by_an_engine_that_was_started_for_that(
    before: Model, runs: ModelInstance, follows: bool
) -> None:
    """Of several workers none but the first would have the files; and what has failed may be mended by it."""
    after = attrs.evolve(before, lora_adapters=(A, B))
    grown = edited(before, after, taken_up(before, [runs])).generation - before.generation
    assert grown == (0 if follows else 1)


def test_whatever_else_runs_otherwise_needs_new_replicas_all_the_same() -> None:
    before = deployed()
    after = attrs.evolve(before, lora_adapters=(A, B), backend_parameters=("--max-lora-rank=64",))
    assert edited(before, after, taken_up(before, [instance()])).generation == 2
    renamed = attrs.evolve(before, name="n")
    assert edited(before, renamed, taken_up(before, [instance()])).generation == 2
