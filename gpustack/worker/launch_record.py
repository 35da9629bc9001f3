"""What an engine was started with, kept beside its log without its secrets, for people who look for what went wrong."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from pathlib import Path

from gpustack import durable_file
from gpustack.domain.document import decode, encode
from gpustack.domain.launch import LaunchRecord
from gpustack.engines.engine import LaunchSpec
from gpustack.errors import Invalid
from gpustack.text import MASK, masked_arguments, masked_environment

SUFFIX = ".launch.json"
LARGEST = 1 << 20
"""Bytes of a record."""


def launch_record(launch: LaunchSpec, secrets: Mapping[str, str], now: datetime) -> LaunchRecord:
    """That of a start. What is in ``secrets`` is masked wherever it stands."""
    values = [value for value in secrets.values() if value]

    def without(text: str) -> str:
        for value in values:
            text = text.replace(value, MASK)
        return text

    return LaunchRecord(
        argv=tuple(without(one) for one in masked_arguments(launch.argv)),
        env={name: without(value) for name, value in masked_environment(launch.env).items()},
        started_at=now,
        files=tuple(sorted(launch.files)),
    )


def record_file(log_file: Path) -> Path:
    """Where the record of the process is that writes to that log."""
    return log_file.with_suffix(SUFFIX)


def write_record(log_file: Path, record: LaunchRecord) -> None:
    """Blocking; raises ``OSError``."""
    path = record_file(log_file)
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    durable_file.write(path, encode(record), sync=False)  # no engine need wait for the disk


def read_record(log_file: Path) -> LaunchRecord | None:
    """The record of the last start; ``None`` where there is none that can be read. Blocking."""
    try:
        with record_file(log_file).open("rb") as file:
            return decode(file.read(LARGEST), LaunchRecord)
    except (OSError, Invalid):
        return None
