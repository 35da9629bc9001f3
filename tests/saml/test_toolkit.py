"""The toolkit is optional: without it, or with libraries that do not fit, one sentence says what to type."""

from __future__ import annotations

import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from gpustack.identity.saml.toolkit import REQUIREMENTS
from tests.child import ROOT

PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
ASKS = "from gpustack.identity.saml.toolkit import toolkit\ntoolkit()"


def test_the_extra_is_what_the_sentence_says_and_the_tests_run_with() -> None:
    assert tuple(PROJECT["project"]["optional-dependencies"]["saml"]) == REQUIREMENTS
    assert set(REQUIREMENTS) <= set(PROJECT["dependency-groups"]["dev"])


def asked(folder: Path, **modules: str) -> str:
    """What asking for it prints where these modules are in the place of the installed ones."""
    for name, text in modules.items():
        (folder / f"{name}.py").write_text(text)
    script = f"import sys\nsys.path.insert(0, {str(folder)!r})\n{ASKS}"
    done = subprocess.run(
        [sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, check=False
    )
    return done.stderr.strip().splitlines()[-1] if done.returncode else ""


@pytest.mark.parametrize("absent", ["xmlsec", "lxml", "onelogin"])
def test_without_a_package_the_command_that_brings_it_is_told(tmp_path: Path, absent: str) -> None:
    text = f"raise ModuleNotFoundError('No module named {absent}', name={absent!r})"
    told = asked(tmp_path, **{absent: text})
    assert f"not installed ({absent}): pip install --only-binary lxml,xmlsec 'python3-saml>=1.16,<2'" in told


def test_a_pair_of_libraries_that_does_not_fit_is_told(tmp_path: Path) -> None:
    """This is how the one library complains of the other; it has no class of its own that could be named."""
    text = "raise Exception(-1, 'lxml & xmlsec libxml2 library version mismatch')"
    told = asked(tmp_path, xmlsec=text)
    assert "do not work together" in told
    assert "version mismatch" in told
    assert "pip install" in told


def test_nobody_who_does_not_use_it_loads_it() -> None:
    script = (
        "import sys, gpustack.cli.daemon.server_role, gpustack.identity.saml.provider\n"
        "sys.exit(any(name in sys.modules for name in ('lxml', 'xmlsec', 'onelogin')))"
    )
    assert subprocess.run([sys.executable, "-c", script], cwd=ROOT, check=False).returncode == 0
