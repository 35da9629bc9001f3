"""New secrets have a length below which they are guessed; those that were chosen before hold on, with a warning."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.daemon import WITHIN, daemon

SHORT = {"GPUSTACK_TOKEN": "fifteen-letters", "GPUSTACK_BOOTSTRAP_PASSWORD": "Seven_7"}
LONG = {"GPUSTACK_TOKEN": "sixteen-letters!", "GPUSTACK_BOOTSTRAP_PASSWORD": "Eight_88"}


@pytest.mark.attack("guessing")
@pytest.mark.parametrize(
    ("name", "told"),
    [
        ("GPUSTACK_TOKEN", "--token has fewer than 16 characters"),
        ("GPUSTACK_BOOTSTRAP_PASSWORD", "--bootstrap-password has fewer than 8 characters"),
    ],
)
def test_a_new_server_refuses_secrets_that_are_short_and_takes_longer_ones_afterwards(
    tmp_path: Path, name: str, told: str
) -> None:
    with daemon(tmp_path / "data", "--disable-worker", env={**LONG, name: SHORT[name]}, wait=False) as one:
        assert one.process.wait(WITHIN) == 1
        assert f"gpustack: {told}" in one.log
        assert SHORT[name] not in one.log and "Traceback" not in one.log
    with daemon(tmp_path / "data", "--disable-worker", env=LONG) as one:
        assert one.call("GET", "/v1/users/me")[1]["username"] == "admin"


def test_a_server_that_has_them_goes_on_with_a_warning(tmp_path: Path) -> None:
    with daemon(tmp_path / "data", "--disable-worker"):
        pass
    token = tmp_path / "data" / "token"
    token.write_text("kept-before")
    with daemon(tmp_path / "data", "--disable-worker") as one:
        assert "The cluster token in" in one.log and "fewer than 16 characters" in one.log
        assert "kept-before" not in one.log
    with daemon(tmp_path / "data", "--disable-worker", env=SHORT) as one:
        assert "sooner guessed: token (GPUSTACK_TOKEN, 16 for a new one), bootstrap_password" in one.log
