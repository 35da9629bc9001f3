"""Show the GPUs of this machine, or write down all that is seen of them for a report.

Usage:
  gpustack hardware [--output=OUT]
  gpustack hardware dump [--output=OUT]

It needs no server, and no root. dump lets every detector look once and writes what the drivers and the vendors' tools
said, how long it took and what was made of it, as one JSON file. Serial numbers, uuids, names of this host and its
users, addresses and process ids are replaced; look the file over before you attach it to a report all the same.

Options:
  -o, --output=OUT  table, json or yaml (default: table); with dump, the file to write (default: standard output).
  -h, --help        Show this help.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from gpustack.cli import output
from gpustack.cli.command_line import CommandLine, read
from gpustack.cli.output import Cell, Row
from gpustack.cli.terminal import Terminal, stderr, stdout

if TYPE_CHECKING:
    from gpustack.domain.device import Device
    from gpustack.domain.worker import WorkerStatus
    from gpustack.hardware.redaction import Redaction

_HEADS = ("INDEX", "TYPE", "NAME", "MEMORY", "USED", "LOAD", "TEMPERATURE", "DRIVER", "JOINED")


def run(argv: Sequence[str], env: Mapping[str, str]) -> int:
    """Print a row for each device; faults go to stderr and are no failure of this command."""
    command_line = read(__doc__, "hardware", argv)
    if command_line.flag("dump"):
        return _dump(command_line, stderr(env))
    command_line.choice("--output", *output.FORMS)  # refused before anything is looked at
    status = _look()
    for fault in status.detection_faults:
        stderr(env).say(fault)
    if not status.gpu_devices and not status.detection_faults:
        stderr(env).say("No GPU was found: models run on the processor.")
    documents = [_document(device) for device in status.gpu_devices]
    output.show(command_line, documents, lambda: _table(status.gpu_devices, stdout(env)), name="uuid")
    return 0


def _look() -> WorkerStatus:
    """What a worker on this machine would report of its devices."""
    import time
    from datetime import UTC, datetime

    import trio

    from gpustack.hardware.detection import DeviceMonitor
    from gpustack.hardware.host import HostMonitor
    from gpustack.hardware.monitor import compose

    now = datetime.now(UTC)
    detection = trio.run(DeviceMonitor().look, now)
    return compose(HostMonitor(time.monotonic).look(now), detection, ())


def _document(device: Device) -> dict[str, Any]:
    import attrs

    return attrs.asdict(device)


def _table(devices: Sequence[Device], terminal: Terminal) -> str:
    return output.draw_table(_HEADS, [_row(device) for device in devices], terminal) if devices else ""


def _row(device: Device) -> Row:
    from gpustack.domain.unit import human_bytes

    memory, core = device.memory, device.core
    load = None if core is None else core.utilization_rate
    shared = " shared" if memory.is_unified_memory else ""
    style = None if device.fault is None else "red"
    return Row(
        [
            Cell(str(device.index), style),
            device.type,
            device.name,
            "-" if memory.total is None else f"{human_bytes(memory.total)}{shared}",
            "-" if memory.used is None else human_bytes(memory.used),
            "-" if load is None else f"{load:.0f} %",
            "-" if device.temperature is None else f"{device.temperature:.0f} °C",
            device.driver_version or "-",
            _joined(device),
        ],
        device.fault or "",
    )


def _joined(device: Device) -> str:
    """The nearest link, and to which devices: the others are farther."""
    if not device.links:
        return "-"
    nearest = device.links[0]
    count = "" if nearest.count is None else f" x{nearest.count}"
    return f"{nearest.kind.value}{count}: {','.join(map(str, nearest.indexes))}"


def dump_document() -> Any:
    """What every detector sees here, without what tells whose machine it is. Blocks for some seconds."""
    from datetime import UTC, datetime

    import trio

    from gpustack.hardware.detection import DeviceMonitor
    from gpustack.hardware.dump import take

    return _redaction().document(trio.run(take, DeviceMonitor(), datetime.now(UTC)))


def _dump(command_line: CommandLine, terminal: Terminal) -> int:
    from pathlib import Path

    from gpustack.errors import Invalid
    from gpustack.text import said_by

    document = dump_document()
    text = output.as_json(document)
    place = command_line.text("--output")
    if place is None:
        print(text)
        return 0
    try:
        Path(place).write_text(f"{text}\n", encoding="utf-8")
    except OSError as error:
        raise Invalid(f"The dump cannot be written to {place}: {said_by(error)}") from error
    reports = [one["report"] for one in document["detectors"] if "report" in one]
    devices = sum(len(report["devices"]) for report in reports)
    asked = ", ".join(one["name"] for one in document["detectors"]) or "none"
    terminal.say(
        f"Wrote {place}: {devices} devices; detectors that looked: {asked}. Look it over before you share it."
    )
    return 0


def _redaction() -> Redaction:
    """Knows this host, its users and its addresses."""
    import contextlib
    import getpass
    import pwd
    import socket

    from gpustack.hardware.redaction import Redaction

    host = socket.gethostname()
    people = {one.pw_name for one in pwd.getpwall() if 1000 <= one.pw_uid < 60_000}
    # nobody has this uid, in some containers
    with contextlib.suppress(OSError, KeyError):
        people.add(getpass.getuser())
    return Redaction(names={host, host.partition(".")[0], *people} - {"root"}, addresses=_addresses(host))


def _addresses(host: str) -> set[str]:
    import socket

    try:
        found = socket.getaddrinfo(host, None)
    except OSError:
        return set()
    return {str(address[0]) for *_, address in found}
