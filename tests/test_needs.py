"""A test that cannot run says so and how to mend it; in CI it fails."""

from __future__ import annotations

import sys

import pytest

from tests.needs import requires, requires_module


def test_what_is_there_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CI", "true")
    assert requires(sys.executable) == sys.executable
    requires_module("json")


def test_what_is_missing_is_skipped_with_the_command_that_installs_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.delenv("CI", raising=False)
    with pytest.raises(pytest.skip.Exception, match="apt-get install one-package"):
        requires("no-such-program", apt="one-package")
    with pytest.raises(pytest.skip.Exception, match="pip install no_such_module"):
        requires_module("no_such_module")


def test_in_ci_what_is_missing_is_a_failure(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CI", "true")
    with pytest.raises(pytest.fail.Exception, match="apt-get install no-such-program"):
        requires("no-such-program")
