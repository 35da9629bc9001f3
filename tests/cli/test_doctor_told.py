"""What the doctor says last, and of a port that somebody holds."""

from __future__ import annotations

import socket
from pathlib import Path

import pytest

from gpustack.cli.commands import doctor


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
