"""What a deployment asks of an engine's environment: a version, and requirements beside it."""

from __future__ import annotations

import attrs
import pytest

from gpustack.engines.program import (
    EngineProgram,
    PythonPackage,
    environment_faults,
    environment_name,
    programs,
    requirements_in,
    version_of,
)
from gpustack.engines.registry import engine_by_name
from tests.engines.worlds import model

VLLM = EngineProgram(
    name="vllm",
    package=PythonPackage(
        name="vllm", extras=("audio",), beside=("av",), pins=(("0.10.0", ("transformers==4.53.3",)),)
    ),
)
NO_PACKAGE = EngineProgram(name="text-server")


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("", ()),
        ("a==1, b>=2,<3 ,c[x,y]~=1.0,", ("a==1", "b>=2,<3", "c[x,y]~=1.0")),
        ("  spaced   >= 1 ", ("spaced >= 1",)),
    ],
)
def test_requirements_stand_between_commas(text: str, found: tuple[str, ...]) -> None:
    assert requirements_in(text) == found


@pytest.mark.parametrize(
    ("version", "all_of_it"),
    [
        ("0.9.2", ("vllm[audio]==0.9.2", "av", "transformers==4.53.3")),
        ("0.10.0", ("vllm[audio]==0.10.0", "av", "transformers==4.53.3")),
        ("0.10.1", ("vllm[audio]==0.10.1", "av")),
        ("0.32.0", ("vllm[audio]==0.32.0", "av")),
    ],
)
def test_old_versions_are_pinned_and_what_a_deployment_names_replaces_the_pins(
    version: str, all_of_it: tuple[str, ...]
) -> None:
    assert VLLM.package is not None
    assert VLLM.package.requirements(version, ()) == all_of_it
    assert VLLM.package.requirements(version, ("x==1",)) == (f"vllm[audio]=={version}", "x==1")


@pytest.mark.parametrize(
    ("text", "version"), [(None, None), (" ", None), ("v0.9.1", "0.9.1"), ("1", "1"), ("vv", "vv")]
)
def test_a_version_may_begin_with_a_v(text: str | None, version: str | None) -> None:
    assert version_of(text) == version


@pytest.mark.parametrize(
    ("version", "requirements", "told"),
    [
        (None, "", None),
        ("v0.9.1", "transformers==4.53.3,numpy<3,>=2,outlines[all]===1.0+local", None),
        ("../../etc", "", "backend_version '../../etc' is not a version"),
        ("-r", "", "backend_version '-r' is not a version"),
        (None, "--index-url=http://10.0.0.1", "which is no requirement such as"),
        (None, "x @ http://10.0.0.1/x.whl", "which is no requirement such as"),
        (None, "-r/etc/shadow", "which is no requirement such as"),
        (None, "x; python_version<'3'", "which is no requirement such as"),
        (None, ",".join(f"a{n}" for n in range(65)), "names more than 64 requirements"),
    ],
)
def test_what_is_no_version_or_requirement_is_refused(
    version: str | None, requirements: str, told: str | None
) -> None:
    asks = attrs.evolve(model(), backend_version=version, env={"GPUSTACK_BACKEND_DEPS": requirements})
    faults = environment_faults(asks, VLLM)
    assert len(faults) == (told is not None)
    assert all(told is not None and told in fault for fault in faults)
    assert environment_faults(asks, NO_PACKAGE) == environment_faults(asks, None) == []


def test_an_environment_has_one_name_for_the_same_wishes_in_any_order() -> None:
    assert environment_name("0.9.1", ()) == "0.9.1"
    one, other = environment_name("0.9.1", ("a==1", "b")), environment_name("0.9.1", ("b", "a==1"))
    assert one == other != environment_name("0.9.1", ("a==2", "b"))
    assert one.startswith("0.9.1-")


def test_programs_are_those_of_engines_that_there_are() -> None:
    assert all(engine_by_name(name) is not None for name in programs())
