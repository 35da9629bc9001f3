"""No option goes without a test that shows its effect, unless it says itself that it has none yet."""

from __future__ import annotations

import ast

import pytest

from tests.child import ROOT
from tests.options.document import page
from tests.options.proof import PROOFS, TO_DO
from tests.options.spelling import BY_NAME

OPEN = ("pipx_path", "ollama_library_base_url", "disable_rpc_servers")
"""Beside these, only the multi-node and sign-on options may be without effect."""


def test_every_option_has_an_entry_and_every_entry_is_an_option() -> None:
    assert list(PROOFS) == list(BY_NAME)


@pytest.mark.parametrize("name", BY_NAME)
def test_the_proof_of_an_option_is_a_test_that_exists(name: str) -> None:
    proof = PROOFS[name]
    if proof == TO_DO:
        assert BY_NAME[name].built is False, f"{name} is said to work: name the test that shows it"
        return
    assert BY_NAME[name].built is not False, f"{name} is proven, and still said to be without effect"
    file, _, function = proof.partition("::")
    tree = ast.parse((ROOT / file).read_text())
    assert function.startswith("test_")
    assert function in {
        node.name for node in tree.body if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
    }


def test_only_what_comes_later_is_without_effect() -> None:
    lacking = {name for name, option in BY_NAME.items() if option.built is False}
    later = {
        name
        for name in BY_NAME
        if name.startswith(
            ("ray_", "enable_ray", "rpc_server_", "oidc_", "saml_", "external_auth_", "openid_")
        )
    }
    assert lacking <= later | set(OPEN)


def test_the_docs_page_names_the_proofs() -> None:
    """Run ``python -m tests.options.document > docs/proofs.md`` after changing one."""
    assert (ROOT / "docs" / "proofs.md").read_text() == page()
