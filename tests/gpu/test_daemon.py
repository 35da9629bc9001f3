"""A real daemon on a machine with a GPU: it shows the card, places on it, and gives it to the engine."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from gpustack.domain.unit import MIB
from tests.child import ROOT
from tests.daemon import Daemon, daemon
from tests.gpu.card import Card, cards

pytestmark = pytest.mark.gpu

CLAIM = 3 << 30


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Daemon]:
    cards()
    with daemon(tmp_path_factory.mktemp("gpu") / "data") as one:
        # no worker is listed before its first look at the card
        one.until(lambda: one.call("GET", "/v1/gpu-devices")[1]["items"], "a GPU")
        yield one


@pytest.fixture(scope="module")
def engine(running: Daemon) -> int:
    """The pid of a program with a claim on the card, deployed as people deploy theirs."""
    command = f"{sys.executable} -m tests.fakes.engine --port {{port}} --name {{served_name}}"
    body = {
        "name": "mine",
        "source": "local_path",
        "local_path": "/nonexistent",
        "backend": "custom",
        "command": command,
        "health_path": "/health",
        "env": {"PYTHONPATH": str(ROOT), "GPUSTACK_MODEL_VRAM_CLAIM": str(CLAIM)},
    }
    status, answer = running.call("POST", "/v1/models", body)
    assert status == 200, answer
    (instance,) = running.running("mine")
    return int(instance["pid"])


def test_the_card_is_in_the_api(running: Daemon, card: Card) -> None:
    (worker,) = running.call("GET", "/v1/workers")[1]["items"]
    (device,) = (one for one in worker["status"]["gpu_devices"] if one["uuid"] == card.uuid)
    assert (device["name"], device["index"], device["vendor"]) == (card.name, card.index, "NVIDIA")
    assert device["memory"]["total"] // MIB == card.total // MIB
    assert card.uuid in {one["uuid"] for one in running.call("GET", "/v1/gpu-devices")[1]["items"]}


def test_the_card_is_in_the_list_of_workers(running: Daemon, card: Card) -> None:
    listed = subprocess.run(
        [sys.executable, "-P", "-m", "gpustack", "workers"],
        env={**os.environ, "GPUSTACK_DATA_DIR": str(running.data_dir)},
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    assert card.name.removeprefix("NVIDIA ") in listed.stdout


def test_an_engine_is_placed_on_the_card_and_its_claim_is_counted(
    running: Daemon, engine: int, card: Card
) -> None:
    (instance,) = running.instances("mine")
    (device,) = (
        one
        for one in running.call("GET", "/v1/gpu-devices")[1]["items"]
        if one["index"] in instance["gpu_indexes"]
    )
    assert device["uuid"] == card.uuid or len(cards()) > 1
    assert device["memory"]["allocated"] == CLAIM


def test_a_program_of_the_engine_sees_the_card_it_was_placed_on(running: Daemon, engine: int) -> None:
    (instance,) = running.instances("mine")
    words = Path(f"/proc/{engine}/environ").read_bytes().decode().rstrip("\0").split("\0")
    asked = subprocess.run(
        [sys.executable, "-m", "tests.gpu.program", "list"],
        env=dict(word.split("=", 1) for word in words),
        cwd=ROOT,
        stdout=subprocess.PIPE,
        timeout=60,
        check=True,
    )
    placed = [one.uuid for one in cards() if one.index in instance["gpu_indexes"]]
    assert placed and json.loads(asked.stdout) == placed
