from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gpustack.engines.custom import ENGINE

from .worlds import context, model


def test_a_complete_command_has_no_faults() -> None:
    assert (
        ENGINE.faults(model(command="s -p {port} -m {model_path} -n {served_name}", health_path="/up")) == []
    )


@pytest.mark.parametrize(
    ("fields", "fault"),
    [
        ({}, "needs a command"),
        ({"command": "  "}, "needs a command"),
        ({"command": "serve"}, "must contain {port}"),
        ({"command": "serve {port} {gpu}"}, "{gpu}, which is none of {port}, {host}"),
        ({"command": "serve {port} {model-path}"}, "{model-path}, which is none of {port}, {host}"),
        ({"command": "serve {port} {MODEL_PATH}"}, "{MODEL_PATH}, which is none of {port}, {host}"),
        ({"command": "serve {{port}}"}, "{{port}}: a placeholder stands in single braces"),
        ({"command": "serve {port} 'x"}, "cannot be split into words"),
        ({"command": "serve {port}", "health_path": "up"}, "must begin with '/'"),
    ],
)
def test_a_wrong_command_is_answered_with_a_sentence(fields: dict[str, str], fault: str) -> None:
    [said] = ENGINE.faults(model(**fields))
    assert fault in said


@pytest.mark.parametrize("own", ["${N}", '\'{"a": {"b": 1}}\'', "'{}'", "{1..3}"])
def test_braces_of_shells_and_of_json_stay(own: str) -> None:
    command = f"serve {{port}} {own}"
    assert ENGINE.faults(model(command=command)) == []
    assert ENGINE.launch(context(model(command=command))).argv[2] == own.strip("'")


@given(st.text(min_size=1, max_size=30))
def test_a_name_is_one_argument_whatever_it_contains(name: str) -> None:
    launch = ENGINE.launch(context(model(name=name, command="serve --name {served_name} --port {port}")))
    assert launch.argv == ("serve", "--name", name, "--port", "40000")


def test_files_are_fetched_only_when_the_command_asks_for_them() -> None:
    assert ENGINE.fetches(model(command="serve {port} {model_path}"))
    assert not ENGINE.fetches(model(command="serve {port}"))


@pytest.mark.parametrize(
    ("command", "items", "tokens"),
    [
        ("serve --port {port}", (), None),
        ("vllm serve --max-model-len 4096 --port {port}", (), 4096),
        ("sglang --context-length=2048 --port {port}", (), 2048),
        ("llama-server --port {port}", ("--ctx-size 512",), 512),
        ("serve --max-model-len auto --port {port}", (), None),
        ("serve --max-model-len -1 --port {port}", (), None),
        ("serve 'unfinished --max-model-len 5", (), None),
    ],
)
def test_how_long_an_answer_may_be_is_what_the_command_says(
    command: str, items: tuple[str, ...], tokens: int | None
) -> None:
    assert ENGINE.context(model(command=command, backend_parameters=items)) == tokens


def test_a_program_finds_its_key_in_the_environment_and_a_command_cannot_hold_it() -> None:
    deployed = model(command="serve {port}", env={"MY_KEY": "Bearer {api_key}", "VLLM_API_KEY": "own"})
    env = ENGINE.launch(context(deployed, api_key="k1")).env
    assert (env["GPUSTACK_ENGINE_API_KEY"], env["LLAMA_API_KEY"], env["MY_KEY"]) == ("k1", "k1", "Bearer k1")
    assert env["VLLM_API_KEY"] == "own"
    (fault,) = ENGINE.faults(model(command="serve {port} --api-key {api_key}"))
    assert "all users of the machine could read" in fault
