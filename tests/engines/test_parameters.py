from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gpustack.engines import parameters
from gpustack.engines.parameters import BackendParameter


@pytest.mark.parametrize(
    "items", [["--ctx-size=4096"], ["--ctx-size 4096"], ["--ctx-size", "4096"], ["--metrics --ctx-size 4096"]]
)
def test_every_spelling_of_a_parameter_is_read_alike(items: list[str]) -> None:
    assert parameters.number_of(items, "-c", "--ctx-size") == 4096
    assert parameters.tokens(items)[-2:] == ("--ctx-size", "4096")


def test_flags_are_found_with_underscores_too_as_engines_read_them() -> None:
    items = ["--ctx_size 4096", "--no_kv_unified"]
    assert parameters.number_of(items, "-c", "--ctx-size") == 4096
    assert parameters.has(items, "--no-kv-unified")
    assert parameters.last_of(items, ("--kv-unified", "--no-kv-unified")) == "--no-kv-unified"
    assert not parameters.has(["-c_x"], "-c-x")


def test_the_last_of_several_wins_whatever_its_name() -> None:
    assert parameters.value_of(["-c 1", "--ctx-size=2"], "-c", "--ctx-size") == "2"
    assert parameters.value_of(["--ctx-size=2", "-c", "1"], "-c", "--ctx-size") == "1"


def test_a_negative_number_is_a_value_and_no_flag() -> None:
    assert parameters.read(["--seed", "-1"]) == (BackendParameter("--seed", "-1"),)


@pytest.mark.parametrize(
    ("item", "value"),
    [
        ("--chat-template={{ a = b }} --x", "{{ a = b }} --x"),
        ("--chat-template 'one two'", "one two"),
        ("--chat-template one two", "one two"),
        ("--chat-template it's", "it's"),
        ('--override {"a": "b c"}', '{"a": "b c"}'),
        ('--override {"a":"b"}', '{"a":"b"}'),
    ],
)
def test_a_value_may_hold_spaces_quotes_and_equal_signs(item: str, value: str) -> None:
    flag = item.split("=")[0].split(" ")[0]
    assert parameters.tokens([item]) == (flag, value)


def test_a_switch_is_there_without_a_value() -> None:
    assert parameters.has(["--metrics", "--slots"], "--slots")
    assert parameters.value_of(["--metrics", "--slots"], "--metrics") is None
    assert not parameters.has(["--metrics"], "--slots")


def test_of_switches_that_undo_each_other_the_last_holds() -> None:
    assert parameters.last_of(
        ["--kv-unified", "--no-kv-unified"], ("-kvu", "--kv-unified", "--no-kv-unified")
    ) == ("--no-kv-unified")


def test_a_word_after_no_flag_is_shown_as_such() -> None:
    assert parameters.read(["4096"]) == (BackendParameter("", "4096"),)


def test_the_data_directory_is_filled_in() -> None:
    assert parameters.expanded(["--lora={data_dir}/a"], data_dir="/d") == ("--lora=/d/a",)


@given(st.lists(st.text(max_size=20), max_size=5))
def test_anything_can_be_read(items: list[str]) -> None:
    assert len(parameters.tokens(items)) >= len(items)
    parameters.read(items)
