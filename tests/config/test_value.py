from __future__ import annotations

from typing import Any

import pytest

from gpustack.config.value import (
    GIB,
    PortRange,
    SystemReservedGib,
    read_bool,
    read_int,
    read_number,
    read_port_range,
    read_system_reserved,
    read_words,
)


@pytest.mark.parametrize("text", ["true", "True", "1", "yes", "ON", True])
def test_words_for_true(text: Any) -> None:
    assert read_bool(text) is True


@pytest.mark.parametrize("text", ["false", "FALSE", "0", "no", "off", False])
def test_words_for_false(text: Any) -> None:
    assert read_bool(text) is False


@pytest.mark.parametrize("text", ["", "2", "maybe", None, []])
def test_other_words_are_neither(text: Any) -> None:
    with pytest.raises(ValueError, match="must be true or false"):
        read_bool(text)


@pytest.mark.parametrize("text", ["1.0", "1e3", "", "ten", "1_000", True, None, 1.5, "9" * 5000])
def test_what_is_no_whole_number_is_told(text: Any) -> None:
    with pytest.raises(ValueError, match="must be a whole number"):
        read_int(text)


@pytest.mark.parametrize("text", ["nan", "inf", "-inf", "", True, None, {}])
def test_what_is_no_finite_number_is_told(text: Any) -> None:
    with pytest.raises(ValueError, match="must be a number"):
        read_number(text)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("a,b", ("a", "b")),
        (" a , b ,", ("a", "b")),
        ('["a,b", "c"]', ("a,b", "c")),
        ("[]", ()),
        (["a,b", 1], ("a,b", "1")),
    ],
)
def test_a_list_is_json_or_words_between_commas(text: Any, words: tuple[str, ...]) -> None:
    assert read_words(text) == words


@pytest.mark.parametrize("text", ["[1", '["a"] b', {"a": 1}, [["a"]], [None], "[" * 10000])
def test_what_is_no_list_is_told(text: Any) -> None:
    with pytest.raises(ValueError, match=r"list|JSON"):
        read_words(text)


def test_a_port_range_has_both_its_ends() -> None:
    ports = read_port_range(" 40000 - 40063 ")
    assert (len(ports), 40000 in ports, 40063 in ports, 40064 in ports) == (64, True, True, False)
    assert str(ports) == "40000-40063"
    assert read_port_range("5-5") == PortRange(5, 5)


@pytest.mark.parametrize("text", ["", "1", "1-", "a-b", "2-1", "0-5", "1-65536", "1-2-3", "-1-5", "1-999999"])
def test_what_is_no_port_range_is_told(text: str) -> None:
    with pytest.raises(ValueError, match="must"):
        read_port_range(text)


@pytest.mark.parametrize(
    ("text", "reserved"),
    [
        ('{"ram": 2, "vram": 1}', SystemReservedGib(2, 1)),
        ('{"ram": 0, "vram": 0}', SystemReservedGib(0, 0)),
        ({"memory": 4, "gpu_memory": 0.5}, SystemReservedGib(4, 0.5)),
        ({"vram": "3"}, SystemReservedGib(2, 3)),
        ({}, SystemReservedGib(2, 1)),
    ],
)
def test_reserved_memory_may_be_zero_and_may_have_its_old_names(
    text: Any, reserved: SystemReservedGib
) -> None:
    found = read_system_reserved(text)
    assert found == reserved
    assert (found.ram_bytes, found.vram_bytes) == (round(reserved.ram * GIB), round(reserved.vram * GIB))
    assert read_system_reserved(str(found)) == found


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ('{"ram": -1}', "must not be negative"),
        ('{"ram": 1, "memory": 2}', "twice"),
        ('{"disk": 1}', "takes ram and vram"),
        ('{"ram": "lots"}', "must be a number"),
        ("[1]", "must be a mapping"),
        ("{", "not valid JSON"),
        ("2", "must be a mapping"),
    ],
)
def test_what_is_no_reservation_is_told(text: str, fault: str) -> None:
    with pytest.raises(ValueError, match=fault):
        read_system_reserved(text)
