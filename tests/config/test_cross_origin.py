"""What is said of cross-origin options, and of a catalog, before anything starts."""

from __future__ import annotations

from pathlib import Path

import pytest

from .loading import faults, loaded


@pytest.mark.parametrize(
    "origin",
    ["*", "https://app.example.com", "http://localhost:3000", "http://[::1]:1/", "app://obsidian.md"],
)
def test_origins_are_taken(origin: str) -> None:
    assert loaded("--enable-cors", "--allow-origins", origin).options.allow_origins == (origin,)


@pytest.mark.parametrize(
    "origin", ["app.example.com", "https://app.example.com/path", "https://me@example.com", "https://", ""]
)
def test_what_is_no_origin_is_refused(origin: str) -> None:
    (fault,) = faults("--enable-cors", f"--allow-origins={origin}")
    assert "allow_origins takes *" in fault


def test_cookies_for_everybody_are_warned_of() -> None:
    (warning,) = loaded("--enable-cors", "--allow-credentials").warnings
    assert "allow_origins" in warning and "--allow-credentials" in warning
    named = ("--allow-origins", "https://app.example.com")
    assert not loaded("--enable-cors", "--allow-credentials", *named).warnings


def test_a_catalog_is_a_file_or_a_url(tmp_path: Path) -> None:
    file = tmp_path / "my catalog.yaml"
    file.write_text("[]")
    for good in (str(file), file.as_uri(), "https://example.com/catalog.yaml"):
        assert loaded("--model-catalog-file", good).options.model_catalog_file == good
    for bad in (f"{file}.not", f"{file.as_uri()}.not"):
        (fault,) = faults("--model-catalog-file", bad)
        assert "not there" in fault
