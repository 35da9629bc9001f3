"""Tools that answer ``--query-gpu=FIELDS --format=csv,noheader`` as nvidia-smi does."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from gpustack.domain.device import Device
from gpustack.hardware.figures import celsius, cores, csv_rows, memory, percent, size, text, whole
from gpustack.hardware.probe import DeviceProbe, ToolAnswer

ESSENTIAL = ("index", "name", "memory.total", "memory.used")


def ask(
    probe: DeviceProbe, tool: str, option: str, fields: Sequence[str]
) -> tuple[ToolAnswer, list[dict[str, str]]]:
    """The fields of each card. A release that does not know one of them refuses all: then the essential ones."""
    answer = ToolAnswer()
    for asked in (tuple(fields), ESSENTIAL):
        answer = probe.run(tool, f"--{option}={','.join(asked)}", "--format=csv,noheader")
        rows = [dict(zip(asked, row, strict=True)) for row in csv_rows(answer.out, len(asked))]
        found = [row for row in rows if whole(row["index"]) is not None]
        if found or not answer.is_installed:
            return answer, found
    return answer, []


def device_of(row: Mapping[str, str], vendor: str, kind: str) -> Device:
    """A row with an index; ``utilization.*`` and ``temperature.*`` may be of any unit of the card."""
    rest = {key.partition(".")[0]: value for key, value in row.items() if not key.startswith("memory.")}
    return Device(
        index=whole(row["index"]) or 0,
        name=text(row["name"]) or vendor,
        vendor=vendor,
        type=kind,
        uuid=text(rest.get("uuid")),
        core=cores(None, percent(rest.get("utilization"))),
        memory=memory(size(row["memory.total"], "MiB"), size(row["memory.used"], "MiB")),
        temperature=celsius(rest.get("temperature")),
        driver_version=text(rest.get("driver_version")),
    )
