"""The GPUs of this machine as NVIDIA's own tool tells of them, to hold against what we say."""

from __future__ import annotations

import csv
import shutil
import subprocess

import pytest
from attrs import frozen

from gpustack.domain.unit import MIB

_FIELDS = (
    "index,uuid,name,driver_version,compute_cap",
    "memory.total,memory.free,temperature.gpu,mig.mode.current",
)


@frozen(kw_only=True)
class Card:
    """A line of ``nvidia-smi``; memory in bytes, to the MiB that it rounds to."""

    index: int
    uuid: str
    name: str
    driver: str
    capability: str
    total: int
    used: int
    temperature: float
    is_divided: bool


def cards() -> list[Card]:
    """Every card; skips the test, with the reason, where there is none."""
    tool = shutil.which("nvidia-smi")
    if tool is None:
        pytest.skip("this test needs an NVIDIA GPU, and nvidia-smi is not on PATH")
    asked = subprocess.run(
        [tool, f"--query-gpu={','.join(_FIELDS)}", "--format=csv,noheader,nounits"],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    if asked.returncode or not asked.stdout.strip():
        pytest.skip(
            f"this test needs an NVIDIA GPU; nvidia-smi says: {(asked.stdout + asked.stderr).strip()}"
        )
    return [_card([word.strip() for word in row]) for row in csv.reader(asked.stdout.splitlines())]


def _card(words: list[str]) -> Card:
    index, uuid, name, driver, capability, total, free, temperature, mig = words
    return Card(
        index=int(index),
        uuid=uuid,
        name=name,
        driver=driver,
        capability=capability,
        total=int(total) * MIB,
        used=(int(total) - int(free)) * MIB,
        temperature=float(temperature),
        is_divided=mig == "Enabled",
    )
