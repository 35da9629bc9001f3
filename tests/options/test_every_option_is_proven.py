"""No option goes without a test that shows its effect, unless it says itself that it has none yet."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Mapping

import pytest

from gpustack.config.environment import Environment, ModelVariables
from gpustack.config.option import Option, table
from tests.child import ROOT, environment
from tests.options.proof import MODEL_VARIABLES, PROOFS, TO_DO, VARIABLES
from tests.options.spelling import BY_NAME, SPELLINGS

LATER = (*("oidc_", "saml_", "external_auth_", "openid_"),)
"""How the options of several nodes for one model and of sign-on begin; beside these, none is without effect."""
PER_MODEL = [variable.env for variable in table(ModelVariables)]
VARIABLES_BY_NAME: Mapping[str, Option] = {option.name: option for option in table(Environment)}


@pytest.fixture(scope="module")
def tests() -> set[str]:
    """The ids of all tests in the files that are named, as pytest finds them."""
    every = {**PROOFS, **VARIABLES, **MODEL_VARIABLES}
    files = sorted({proof.partition("::")[0] for proof in every.values() if proof != TO_DO})
    command = [sys.executable, "-m", "pytest", "--collect-only", "-p", "no:cacheprovider", *files]
    ran = subprocess.run(command, env=environment(), cwd=ROOT, capture_output=True, text=True, timeout=120)
    assert ran.returncode == 0, ran.stdout + ran.stderr
    return {line for line in ran.stdout.splitlines() if "::" in line}


def test_every_option_and_variable_has_an_entry_and_every_entry_is_one() -> None:
    assert list(PROOFS) == list(BY_NAME)
    assert list(VARIABLES) == list(VARIABLES_BY_NAME)
    assert list(MODEL_VARIABLES) == PER_MODEL


@pytest.mark.parametrize("name", BY_NAME)
def test_an_option_is_proven_in_each_of_its_spellings(name: str, tests: set[str]) -> None:
    option, proof = BY_NAME[name], PROOFS[name]
    assert (proof == TO_DO) is (option.built is False), f"{name} works and is proven, or neither"
    if proof == TO_DO:
        return
    words = {word for test in tests if test.startswith(f"{proof}[") for word in re.split(r"[\[\]-]", test)}
    wanted = set(SPELLINGS) - ({"file"} if name == "config_file" else set())
    assert wanted <= words, f"{proof} does not give {name} in every way it can be given"


@pytest.mark.parametrize("name", [*VARIABLES_BY_NAME, *PER_MODEL])
def test_the_proof_of_a_variable_is_a_test_that_exists(name: str, tests: set[str]) -> None:
    proof = {**VARIABLES, **MODEL_VARIABLES}[name]
    if name in VARIABLES_BY_NAME:
        assert (proof == TO_DO) is (VARIABLES_BY_NAME[name].built is False)
    assert proof == TO_DO or any(test.split("[")[0] == proof for test in tests)


def test_only_what_comes_later_is_without_effect() -> None:
    lacking = {name for name, option in BY_NAME.items() if option.built is False}
    assert {name for name in lacking if not name.startswith(LATER)} == set()
