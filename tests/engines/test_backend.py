"""Backends that administrators describe: judged with all faults, taken over by deployments, run by their command."""

from __future__ import annotations

from typing import Any

import attrs
import pytest

from gpustack.domain.backend import BackendVersion, InferenceBackend
from gpustack.domain.worker import EngineBuild
from gpustack.engines.backend import faults_of, settled
from gpustack.engines.registry import engine_by_name, engine_for
from gpustack.errors import Invalid

from .worlds import context, model

ANY = EngineBuild(engine="custom", origin="any command")


def backend(name: str = "Tiny Server", **fields: Any) -> InferenceBackend:
    versions = {
        "1.0": BackendVersion(command="tiny --port {port} --model {model_path} --name {served_name}"),
        "2.0": BackendVersion(
            command="tiny2 --port {port} --gpus {gpu_count}:{devices}", env={"MODE": "two"}
        ),
    }
    return InferenceBackend(name=name, **{"versions": versions, "default_version": "1.0", **fields})


def test_a_good_one_has_no_faults() -> None:
    assert faults_of(backend()) == []


def test_all_faults_are_named_at_once() -> None:
    wrong = backend(
        "vLLM",
        versions={
            "a b": BackendVersion(command=""),
            "1": BackendVersion(command="x {prt} --key {api_key} '", env={"A=B": ""}),
        },
        default_version="3",
        env={"1A": ""},
        health_path="up",
    )
    wrong_name = backend("tiny/server")
    assert faults_of(wrong_name) == [
        "name: must be up to 100 letters, digits, blanks, dots, dashes, plus signs and underscores"
    ]
    found = "\n".join(faults_of(attrs.evolve(wrong, name="llama_cpp")))
    for sentence in (
        "name: 'llama_cpp' means the engine 'llama-box', which this version has",
        "default_version: '3' is none of the versions (1, a b)",
        "versions.a b: a version is",
        "versions.a b.command: The command is empty",
        "versions.1.command: The command cannot be split into words",
        "versions.1.command: The command must contain {port}",
        "versions.1.command: The command has {api_key}",
        "versions.1.command: The command has {prt}, which is none of {port}, {host}, {model_path}, {served_name}, "
        "{data_dir}, {gpu_count}, {devices}",
        "versions.1.env: 'A=B' is not a name",
        "env: '1A' is not a name",
        "health_path 'up' must begin with '/'",
    ):
        assert sentence in found


def test_two_spellings_of_one_name_are_not_two_backends() -> None:
    assert "are one name" in faults_of(backend("tiny-server"), [backend()])[0]
    assert faults_of(backend(), [backend()]) == [], "it may be judged beside its own record"


@pytest.mark.parametrize("spelled", ["llama-box", "llama.cpp", "llama_cpp", "Llama-Box", "LLAMA CPP"])
def test_an_engine_is_taken_in_any_spelling_and_kept_in_one(spelled: str) -> None:
    assert settled(model(backend=spelled), ()).backend == "llama-box"


def test_custom_and_no_backend_are_taken_too() -> None:
    assert settled(model(backend="Custom"), ()).backend == "custom"
    assert settled(model(backend="  "), ()).backend is None


def test_a_deployment_takes_over_what_its_backend_says() -> None:
    made = settled(
        model(backend="tiny_server"), [backend(categories=("llm",), env={"A": "1", "MODE": "one"})]
    )
    assert (made.backend, made.categories) == ("Tiny Server", ("llm",))
    assert made.backend_spec is not None and made.backend_spec.version == "1.0"
    assert settled(
        model(backend="tiny-server", backend_version="2.0"), [backend(env={"MODE": "one"})]
    ).backend_spec
    back = settled(attrs.evolve(made, backend="llama-box"), [backend()])
    assert back.backend_spec is None


def test_what_is_not_there_is_said_with_what_is() -> None:
    with pytest.raises(
        Invalid, match=r"has ascend-mindie, .*, and administrators added Tiny Server \(custom runs"
    ):
        settled(model(backend="tony"), [backend()])
    with pytest.raises(Invalid, match=r"Backend 'Tiny Server' has no version '9'; it has 1\.0, 2\.0"):
        settled(model(backend="tiny server", backend_version="9"), [backend()])


def test_its_command_runs_with_its_environment_and_the_deployments_over_it() -> None:
    described = backend(
        env={"MODE": "one", "WHO": "{served_name}"}, health_path="/up", metrics={"t:n": "gpustack:n"}
    )
    made = settled(
        model(name="it's mine", backend="tiny-server", backend_version="2.0", env={"WHO": "me"}), [described]
    )
    engine = engine_for(made)
    assert (engine.name, engine.wire_name, engine.metrics) == ("custom", "Tiny Server", {"t:n": "gpustack:n"})
    assert engine.faults(made) == [] and not engine.fetches(made)
    launch = engine.launch(context(made, build=ANY, gpus=(2, 3), device_type="cuda"))
    assert launch.argv == ("tiny2", "--port", "40000", "--gpus", "2:2,3")
    assert (launch.env["MODE"], launch.env["WHO"], launch.env["CUDA_VISIBLE_DEVICES"]) == ("two", "me", "2,3")
    assert launch.health.readiness.path == "/up"
    assert engine.fetches(settled(model(backend="tiny-server"), [described]))


def test_a_command_of_the_deployment_beside_it_is_a_fault() -> None:
    made = settled(model(backend="tiny-server", command="x {port}"), [backend()])
    assert engine_for(made).faults(made) == [
        "A command is for backend 'custom'; this deployment runs backend 'Tiny Server', which has its own"
    ]


def test_names_of_engines_do_not_meet_when_folded() -> None:
    assert engine_by_name("") is None and engine_by_name("...") is None
