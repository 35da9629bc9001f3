"""The house is in order: versions agree, and nothing names a place that only one machine has."""

from __future__ import annotations

import json
import re
import subprocess
import tomllib
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

from tests.needs import requires

ROOT = Path(__file__).resolve().parent.parent
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())

# homes and mounts of single machines, indexes and mirrors; put together here so as not to find themselves
PLACES = [
    re.compile(pattern)
    for pattern in (
        r"(?<![\w.$}])/" + r"(root|work|Users)/\w",
        re.escape(str(ROOT)) + r"\b",
        r"pypi" + r"\.org|files\." + r"pythonhosted|registry\." + r"npmjs|/opt/" + r"(pypi|wheels)",
    )
]


def tracked() -> list[Path]:
    """The files of the checkout that Git knows; where there is no Git history the test is skipped."""
    git = requires("git")
    listed = subprocess.run([git, "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, check=False)
    if listed.returncode:
        pytest.skip("this is not a Git checkout")
    return [ROOT / name for name in listed.stdout.split("\0") if name and (ROOT / name).is_file()]


def requirements() -> list[Requirement]:
    listed = [*PROJECT["project"]["dependencies"], *PROJECT["dependency-groups"]["dev"]]
    return [Requirement(line) for line in listed]


def pins(name: str) -> dict[str, Version]:
    lines = (ROOT / name).read_text().splitlines()
    found = [line.split("==") for line in lines if line and not line.startswith("#")]
    return {canonicalize_name(package): Version(version) for package, version in found}


def lower_bound(requirement: Requirement) -> Version | None:
    for bound in requirement.specifier:
        if bound.operator == ">=" or bound.operator == "==":
            return Version(bound.version.removesuffix(".*"))
    return None


@pytest.mark.parametrize("name", ["constraints.txt", "constraints-lower.txt"])
def test_constraints_hold_exact_versions_and_no_addresses(name: str) -> None:
    for line in (ROOT / name).read_text().splitlines():
        assert re.fullmatch(r"#.*|[A-Za-z0-9._-]+==[0-9][\w.!+]*", line), line
        assert "://" not in line


def test_every_requirement_is_pinned_to_a_version_it_allows() -> None:
    exact = pins("constraints.txt")
    for requirement in requirements():
        version = exact[canonicalize_name(requirement.name)]
        assert requirement.specifier.contains(version, prereleases=True), requirement


def test_lower_bounds_are_those_that_are_tested() -> None:
    lower = pins("constraints-lower.txt")
    wanted = {
        canonicalize_name(requirement.name): lower_bound(requirement)
        for requirement in map(Requirement, PROJECT["project"]["dependencies"])
    }
    assert None not in wanted.values()
    assert {name: version.release[:2] for name, version in lower.items()} == {
        name: bound.release[:2] if bound and len(bound.release) > 1 else bound
        for name, bound in wanted.items()
    }


def test_the_lock_of_the_browser_pages_names_no_addresses() -> None:
    lock = json.loads((ROOT / "console" / "package-lock.json").read_text())
    packages = {name: package for name, package in lock["packages"].items() if name}
    assert packages
    assert not [name for name, package in packages.items() if "resolved" in package]
    assert not [name for name, package in packages.items() if not package.get("integrity")]


def test_no_tracked_file_names_a_place_of_one_machine_or_an_index() -> None:
    faults = []
    for path in tracked():
        try:
            text = path.read_text()
        except UnicodeDecodeError:
            continue
        for pattern in PLACES:
            faults += [f"{path.relative_to(ROOT)}: {found.group()}" for found in pattern.finditer(text)]
    assert not faults, "\n".join(faults)


def test_bare_make_lists_every_target_with_what_it_does() -> None:
    listed = subprocess.run(
        [requires("make"), "--no-print-directory"], cwd=ROOT, capture_output=True, text=True, check=True
    ).stdout
    phony = re.search(r"^\.PHONY: (.+)$", (ROOT / "Makefile").read_text(), re.MULTILINE)
    assert phony is not None
    for target in phony.group(1).split():
        assert re.search(rf"^ *make {target} +\S+", listed, re.MULTILINE), target


def test_the_names_of_fragments_say_issue_and_kind() -> None:
    for path in (ROOT / "changes").iterdir():
        if path.name != "README.md":
            assert re.fullmatch(r"\d+\.(feature|fix|change|removal)(\.\d+)?\.md", path.name), path.name


@pytest.mark.parametrize("name", ["swagger.html", "redoc.html"])
def test_browser_pages_carry_no_script_of_their_own_and_load_nothing_from_elsewhere(name: str) -> None:
    text = (ROOT / "gpustack" / "api" / "pages" / name).read_text()
    assert not re.findall(r"<script(?![^>]*\bsrc=)[^>]*>", text)
    assert not re.findall(r"<style|\sstyle=|\son\w+=", text)
    assert not re.findall(r"(?:src|href)=\"(?:\w+:)?//", text)


def test_what_was_built_for_browsers_names_no_content_network() -> None:
    built = ROOT / "gpustack" / "api" / "static"
    if not built.is_dir():
        pytest.skip("the browser pages are not built; to build them: make docs-ui")
    assert (built / "THIRD-PARTY-LICENSES.txt").stat().st_size > 10_000
    for program in built.glob("*.js"):
        text = program.read_text()
        assert not re.findall(r"https?://[\w.]*(?:cdn|unpkg|googleapis|gstatic)[\w.]*/", text), program.name
        assert "sourceMappingURL=redoc" not in text


@pytest.mark.parametrize(
    ("program", "code", "told"), [("echo 1.2.3", 0, "GPUStack 1.2.3 runs: "), ("exit 3", 2, "does not run")]
)
def test_make_install_shows_that_it_works(tmp_path: Path, program: str, code: int, told: str) -> None:
    """What is installed is there already, and newer than what it is made of."""
    make = requires("make")
    gpustack = tmp_path / "bin" / "gpustack"
    gpustack.parent.mkdir()
    gpustack.write_text(f'#!/bin/sh\n[ "$*" = version ] && {program}\n')
    gpustack.chmod(0o755)
    (tmp_path / ".installed").touch()
    ran = subprocess.run(
        [make, "-s", "install", f"VENV={tmp_path}"], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert (ran.returncode, told in ran.stdout + ran.stderr) == (code, True), ran.stderr
    assert code or f"{tmp_path}/bin/gpustack doctor" in ran.stdout
