"""The memory of MindIE, by the formulas of the existing product."""

from __future__ import annotations

from typing import Any

import pytest

from gpustack.domain.artifact import ModelSource, SourceKind
from gpustack.domain.facts import FileFormat, ModelFacts, TensorBytes
from gpustack.domain.model import Model
from gpustack.domain.unit import GIB, MIB
from gpustack.policy.estimate.demand import demand_of
from gpustack.policy.estimate.mindie import MindieDemand, mindie_demand

WEIGHTS = 14 * GIB


def facts(**more: Any) -> ModelFacts:
    """A model with grouped heads: 32 of which 8 keep keys and values."""
    given = {
        "format": FileFormat.SAFETENSORS,
        "weights": WEIGHTS,
        "total_layers": 32,
        "embedding_length": 4096,
        "heads": (32,),
        "kv_heads": (8,),
        "key_length": 128,
        "context_length": 131072,
        "dtype": "bfloat16",
        "tensors": TensorBytes(layers=(1,) * 32),
        **more,
    }
    return ModelFacts(**given)


def deployed(*parameters: str, **fields: Any) -> Model:
    source = ModelSource(kind=SourceKind.HUGGING_FACE, huggingface_repo_id="org/model")
    return Model(name="m", source=source, backend="ascend-mindie", backend_parameters=parameters, **fields)


def test_weights_cache_work_and_reserve_are_counted() -> None:
    need = mindie_demand(deployed(), facts())
    cache = 2 * 8 * 128 * 32 * 8192 * 2
    work = 200 * 128 * 32 * (2 * 8 * 128) * 2
    assert need.devices((1.0,)).vram == (3 * GIB + WEIGHTS + cache + work,)
    assert need.devices((1.0, 1.0)).vram == (3 * GIB + (WEIGHTS + cache + work) // 2,) * 2
    assert need.devices((1.0,)).ram == 512 * MIB
    assert (need.on_cpu, need.equal, need.spans_workers, need.context) == (False, True, True, 8192)


@pytest.mark.parametrize(
    ("more", "width", "cached", "worked"),
    [
        ({"kv_heads": (32,)}, 2 * 32 * 128, 2, 2),
        ({"kv_heads": (1,)}, 2 * 128, 2, 2),
        ({"dtype": "float32"}, 2 * 8 * 128, 4, 4),
        ({"quantisation": "W8A8"}, 2 * 8 * 128, 2, 1),
        ({"quantisation": "c8"}, 2 * 8 * 128, 1, 2),
        ({"kv_lora_rank": 512}, 2 * 128, 2, 2),
    ],
)
def test_heads_types_and_quantisation_count(
    more: dict[str, Any], width: int, cached: int, worked: int
) -> None:
    need = mindie_demand(deployed(), facts(**more))
    assert need.divided == WEIGHTS + width * 32 * 8192 * cached + 200 * 128 * 32 * width * worked


def test_parameters_and_the_reserve_count() -> None:
    given = ("--max-seq-len=1024", "--max-batch-size=10", "--max-prefill-batch-size=10", "--cpu-mem-size=4")
    need = mindie_demand(deployed(*given, env={"RESERVED_MEMORY_GB": "6"}), facts())
    assert need.divided == WEIGHTS + 2 * 8 * 128 * 32 * (1024 * 2 + 10 * 128 * 2)
    assert (need.reserved, need.host, need.context) == (6 * GIB, 512 * MIB + 4 * GIB, 1024)
    assert mindie_demand(deployed(), facts(context_length=4096)).context == 4096


def test_a_whole_share_of_an_npu_is_taken_and_one_too_small_will_not_do() -> None:
    need = mindie_demand(deployed("--npu-memory-fraction=0.5"), facts())
    assert need.taken(20 * GIB, 64 * GIB) == 32 * GIB
    assert need.taken(40 * GIB, 64 * GIB) > 64 * GIB


def test_npus_are_a_power_of_two_that_divides_the_heads() -> None:
    assert mindie_demand(deployed(), facts()).device_counts == (1, 2, 4, 8, 16, 32)
    assert mindie_demand(deployed(), facts(heads=(28,))).device_counts == (1, 2, 4)
    given = ("--tensor-parallel-size=4", "--data-parallel-size=2")
    assert mindie_demand(deployed(*given), facts()).device_counts == (8,)


def test_what_the_deployment_claims_stands_in_place_of_the_estimate() -> None:
    assert isinstance(demand_of(deployed(), facts(), "mindie"), MindieDemand)
    claimed = deployed(env={"GPUSTACK_MODEL_VRAM_CLAIM": str(8 * GIB), "GPUSTACK_MODEL_RAM_CLAIM": "7"})
    need = demand_of(claimed, facts(), "mindie").devices((1.0,))
    assert (need.vram, need.ram) == ((8 * GIB,), 7)
