"""Engines are shown the devices they were given, by the names that each vendor's runtime knows."""

from __future__ import annotations

import pytest

from gpustack.domain.device import DEVICE_TYPES, FAMILY_STRIDE, Device
from gpustack.engines.visibility import VARIABLES, device_environment, visible_names

from .worlds import SERVER, context, model


def device(index: int, kind: str = "cuda", **fields: object) -> Device:
    return Device(**{"index": index, "name": "G", "vendor": "V", "type": kind, **fields})  # type: ignore[arg-type]


def test_every_type_of_device_has_a_variable_but_apples() -> None:
    assert set(VARIABLES) == set(DEVICE_TYPES.values()) - {"mps"}
    assert device_environment("mps", ("0",)) == {}


def test_whole_nvidia_cards_are_called_by_their_numbers_in_ascending_order() -> None:
    cards = [device(n, uuid=f"GPU-{n}") for n in range(3)]
    assert visible_names(cards, (2, 0)) == ("0", "2")
    assert device_environment("cuda", ("0", "2")) == {
        "CUDA_VISIBLE_DEVICES": "0,2",
        "CUDA_DEVICE_ORDER": "PCI_BUS_ID",
    }


def test_a_part_of_a_card_is_called_by_its_uuid_and_so_are_whole_cards_beside_it() -> None:
    part = device(102, uuid="MIG-1", slice_profile="1g.18gb")
    cards = [part, device(1, uuid="GPU-1")]
    assert visible_names(cards, (102,)) == ("MIG-1",)
    assert visible_names(cards, (1,)) == ("GPU-1",)


def test_amd_cards_are_called_by_uuid_where_that_means_one_of_them() -> None:
    """The partitions of one card share its uuid, and processors with graphics have none."""
    cards = [device(n, "rocm", uuid=uuid) for n, uuid in enumerate(["GPU-a", "GPU-b", "GPU-b", None])]
    assert visible_names(cards, (0, 1, 2, 3)) == ("GPU-a", "1", "2", "3")


def test_the_second_family_of_a_machine_is_called_by_its_vendors_numbers() -> None:
    cards = [device(0), device(FAMILY_STRIDE, "xpu"), device(FAMILY_STRIDE + 1, "xpu")]
    assert visible_names(cards, (FAMILY_STRIDE + 1,)) == ("1",)


def test_a_device_that_is_gone_keeps_its_number() -> None:
    assert visible_names([], (3,)) == ("3",)


@pytest.mark.parametrize(
    ("kind", "variables"),
    [
        ("xpu", {"ZE_AFFINITY_MASK": "1", "ZE_ENABLE_PCI_ID_DEVICE_ORDER": "1"}),
        ("maca", {"CUDA_VISIBLE_DEVICES": "1"}),
        ("npu", {"ASCEND_RT_VISIBLE_DEVICES": "1"}),
        ("of tomorrow", {"CUDA_VISIBLE_DEVICES": "1"}),
    ],
)
def test_types_take_their_own_variable(kind: str, variables: dict[str, str]) -> None:
    assert device_environment(kind, ("1",)) == variables


def test_an_engine_is_shown_the_names_that_its_worker_knows() -> None:
    from gpustack.engines.llama_cpp import ENGINE

    told = context(model(), build=SERVER, gpus=(102,), device_type="cuda", device_names=("MIG-1",))
    assert ENGINE.launch(told).env["CUDA_VISIBLE_DEVICES"] == "MIG-1"


@pytest.mark.parametrize(("gfx", "told"), [("gfx1101", "11.0.0"), ("gfx1100", None), (None, None)])
def test_vllm_takes_amds_smaller_desktop_chips_for_their_larger_sibling(
    gfx: str | None, told: str | None
) -> None:
    from gpustack.domain.worker import EngineBuild
    from gpustack.engines.vllm import ENGINE

    build = EngineBuild(engine="vllm", path="/opt/vllm", version="0.32.0", drives=("rocm",))
    one = context(model(), build=build, gpus=(0,), device_type="rocm", gfx=gfx)
    assert ENGINE.launch(one).env.get("HSA_OVERRIDE_GFX_VERSION") == told


def test_an_engine_that_was_given_no_device_sees_none() -> None:
    """llama.cpp built for NPUs or Intel would compute on one all the same."""
    hidden = device_environment(None, ())
    assert hidden["CUDA_VISIBLE_DEVICES"] == hidden["ASCEND_RT_VISIBLE_DEVICES"] == "-1"
    assert hidden["ONEAPI_DEVICE_SELECTOR"] == "*:cpu"
