"""A process sees one part of a card (MIG instance) at most, so no model is divided among several."""

from __future__ import annotations

from gpustack.domain.device import Device
from gpustack.domain.instance import Placement
from gpustack.domain.model import GpuSelector
from gpustack.policy.placement import Unschedulable
from gpustack.policy.schedule import place

from .shapes import facts_of
from .worlds import ask, gpu, model, worker, world

SMALL, LARGE = facts_of("llama-3.2-1b"), facts_of("llama-3.3-70b")


def part(index: int, gib: float = 18) -> Device:
    return gpu(index, gib, slice_profile="1g.18gb")


def test_a_model_that_fits_on_one_part_is_placed_there() -> None:
    found = place(ask(model(), SMALL), world(worker(gpus=[part(100), part(101)])))
    assert isinstance(found, Placement)
    assert len(found.gpu_indexes) == 1


def test_parts_are_not_put_together_and_whole_cards_beside_them_are() -> None:
    """Four parts would hold it; a part and a card would too."""
    parts = [part(100 + n) for n in range(4)]
    whole_on_gpu = model(cpu_offloading=False)
    assert isinstance(place(ask(whole_on_gpu, LARGE), world(worker(gpus=parts))), Unschedulable)
    assert isinstance(
        place(ask(whole_on_gpu, LARGE), world(worker(gpus=[gpu(0, 40), *parts]))), Unschedulable
    )
    found = place(ask(whole_on_gpu, LARGE), world(worker(gpus=[gpu(0, 40), gpu(1, 40), *parts])))
    assert isinstance(found, Placement)
    assert found.gpu_indexes == (0, 1)


def test_several_parts_that_were_selected_by_hand_are_refused_in_words() -> None:
    chosen = model(gpu_selector=GpuSelector(gpu_ids=("node-a:cuda:100", "node-a:cuda:101")))
    found = place(ask(chosen, SMALL), world(worker(gpus=[part(100), part(101)])))
    assert isinstance(found, Unschedulable)
    assert "one part of a GPU (MIG instance) at most" in found.sentence
