"""Who manages a server without a key, as its log and the doctor say it."""

from __future__ import annotations

from pathlib import Path

import pytest

from gpustack.cli.check import CheckContext
from gpustack.cli.checks import access
from gpustack.cli.local import local_rule


@pytest.mark.parametrize("host", ["", "0.0.0.0", "::", "127.0.0.1", "::1", "localhost"])
def test_a_server_at_the_loopback_is_managed_from_it(host: str) -> None:
    assert local_rule(False, host).startswith("without a key programs of ")


@pytest.mark.parametrize("host", ["10.0.0.5", "node-a", "2001:db8::5"])
def test_a_server_elsewhere_wants_a_key_of_everybody(host: str) -> None:
    assert local_rule(False, host).startswith("every request needs a key or login, from this machine too: ")
    assert f"listens on {host} alone (--host)" in local_rule(False, host)


async def test_the_doctor_says_it_of_the_host_that_is_set(tmp_path: Path) -> None:
    start = ["--data-dir", str(tmp_path), "--host=10.0.0.5"]
    (found,) = await access.look(CheckContext.of(start, {"GPUSTACK_SERVER_URL": "http://127.0.0.1:9"}))
    assert "listens on 10.0.0.5 alone" in found.sentence
