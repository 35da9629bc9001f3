"""The exporters' options have their effect on a real daemon, in each of their three spellings."""

from __future__ import annotations

import socket
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from gpustack.cli.checks.ports import ports_of
from tests.daemon import WITHIN, Daemon, daemon
from tests.metrics.page import series
from tests.options.spelling import SPELLINGS, spelled
from tests.ports import free_ports


@contextmanager
def started(folder: Path, spelling: str, **options: Any) -> Iterator[Daemon]:
    """A daemon with options given in one of the spellings."""
    arguments, env = spelled(spelling, folder, options)
    with daemon(folder / "data", *arguments, env=env) as one:
        yield one


def recorded_port(one: Daemon) -> int:
    """What the server knows of the worker's exporter."""
    (worker,) = one.until(lambda: one.call("GET", "/v1/workers")[1]["items"], "the worker's record")
    return int(worker["metrics_port"])


def names_at(port: int) -> set[str]:
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=WITHIN) as answer:
        return {name for name, _ in series(answer.read())}


@pytest.mark.parametrize("spelling", SPELLINGS)
def test_metrics_port_and_worker_metrics_port_say_where_the_exporters_listen(
    spelling: str, tmp_path: Path
) -> None:
    server, worker = free_ports(2)
    with started(tmp_path, spelling, metrics_port=server, worker_metrics_port=worker) as one:
        assert "gpustack:cluster_info" in names_at(server)
        assert recorded_port(one) == worker
        one.until(
            lambda: "gpustack:worker_node_cpu_cores" in names_at(worker), "the machine, once it has joined"
        )


@pytest.mark.parametrize("spelling", SPELLINGS)
def test_disable_metrics_leaves_only_the_workers(spelling: str, tmp_path: Path) -> None:
    with started(tmp_path, spelling, disable_metrics=True) as one:
        port = recorded_port(one)
        assert "Metrics of the server" not in one.log
        assert port in ports_of(one.process.pid)
        assert len(ports_of(one.process.pid)) == 3  # the front, the worker, the worker's metrics


@pytest.mark.parametrize("spelling", SPELLINGS)
def test_disable_worker_metrics_leaves_only_the_servers(spelling: str, tmp_path: Path) -> None:
    with started(tmp_path, spelling, disable_worker_metrics=True) as one:
        assert recorded_port(one) == -1
        assert "Metrics of the worker" not in one.log
        assert len(ports_of(one.process.pid)) == 3  # the front, the server's metrics, the worker
        url = f"{one.exporter('server')}/metrics/targets"
        with urllib.request.urlopen(url, timeout=WITHIN) as answer:
            assert b'"targets":[]' in answer.read()


@pytest.mark.parametrize("option", ["--metrics-port", "--worker-metrics-port"])
def test_a_port_that_is_taken_is_one_sentence_with_the_option_to_change(option: str, tmp_path: Path) -> None:
    with socket.socket() as holder:
        holder.bind(("127.0.0.1", 0))
        holder.listen()
        port = holder.getsockname()[1]
        with daemon(tmp_path / "data", option, str(port), wait=False) as one:
            assert one.process.wait(WITHIN) == 1
            sentence = f"Port {port} is taken by another program on 127.0.0.1: choose another with {option}."
            assert one.log.count(sentence) == 1
            assert "Traceback" not in one.log
