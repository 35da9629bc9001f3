"""A worker stays who it is."""

from __future__ import annotations

import socket
from pathlib import Path

import pytest

from gpustack.worker.identity import WorkerName, host_name, save_name, worker_name, worker_uuid


def test_a_name_comes_from_the_option_else_as_remembered_else_from_the_host(tmp_path: Path) -> None:
    assert worker_name(tmp_path, None) == WorkerName(socket.gethostname(), False)
    save_name(tmp_path, "host-12345")
    assert worker_name(tmp_path, None) == WorkerName("host-12345", False)
    assert worker_name(tmp_path, "mine") == WorkerName("mine", True)


def test_the_uuid_is_made_once(tmp_path: Path) -> None:
    made = worker_uuid(tmp_path)
    assert worker_uuid(tmp_path) == made
    (tmp_path / "worker_uuid").write_text("")
    assert worker_uuid(tmp_path) not in ("", made)


def test_the_name_of_a_machine_is_one_that_a_server_takes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(socket, "gethostname", lambda: "caf\udce9\n")
    assert host_name() == r"caf\xe9\n"
    monkeypatch.setattr(socket, "gethostname", lambda: "")
    assert host_name() == "worker"
