"""What the doctor says last, of a port that somebody holds, and of a certificate."""

from __future__ import annotations

import socket
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from gpustack.cli.check import CheckContext, CheckStatus
from gpustack.cli.checks import certificate
from gpustack.cli.commands import doctor
from tests.certificates import make_certificate


def test_the_doctor_counts_what_failed_and_names_who_holds_a_port(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        others = ("--worker-port=0", "--metrics-port=0", "--worker-metrics-port=0")
        argv = ["--", "--host=127.0.0.1", f"--port={port}", f"--data-dir={tmp_path}", *others]
        assert doctor.run(argv, {"HOME": str(tmp_path), "PATH": "/usr/bin"}) == 1
    told = capsys.readouterr().out
    assert f"Port {port} is taken by another program" in told
    assert "(process " in told and ", or set --port to a port that is free." in told
    assert told.endswith("1 failed, told above: ports\n")


@pytest.mark.parametrize(
    ("days", "verdict", "said"),
    [
        (-1, CheckStatus.FAILED, "has ended on"),
        (5, CheckStatus.NOTE, "holds until"),
        (90, CheckStatus.GOOD, "holds until"),
    ],
)
async def test_a_certificate_is_told_before_and_after_it_ends(
    tmp_path: Path, days: int, verdict: CheckStatus, said: str
) -> None:
    files = make_certificate(tmp_path, "server", ends=datetime.now(UTC) + timedelta(days=days))
    argv = [f"--data-dir={tmp_path}", f"--ssl-certfile={files[0]}", f"--ssl-keyfile={files[1]}"]
    (found,) = await certificate.look(CheckContext.of(argv, {"HOME": str(tmp_path)}))
    assert (found.status, said in found.sentence) == (verdict, True), found
    files[0].write_text("no certificate")
    (found,) = await certificate.look(CheckContext.of(argv, {"HOME": str(tmp_path)}))
    assert "holds no certificate that can be read" in found.sentence
