"""How soon the program answers, and what it takes when it does nothing.

    python benchmarks/startup.py [--rounds 3] [--idle 10] [--json]

``--help`` beside an interpreter that does nothing; a second start (records are there) to its first answer and to
readiness; then memory and processor of the idle daemon with its worker inside, over its whole tree of processes.
"""

from __future__ import annotations

import argparse
import json
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent))

from benchmarks.measure import cpu, pss, tree  # noqa: E402
from tests.ports import free_port, free_range  # noqa: E402


def main() -> None:
    parser = argparse.ArgumentParser(prog="benchmarks/startup.py", description=__doc__)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--idle", type=float, default=10.0)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    figures = {**helped(max(options.rounds * 2, 5)), **started(options.rounds, options.idle)}
    if options.json:
        print(json.dumps(figures))
        return
    for name, value in figures.items():
        print(f"{name:44} {value:.3f}")


def helped(rounds: int) -> dict[str, float]:
    """Medians of pairs, each run after the other."""
    nothing, shown = [], []
    for _ in range(rounds):
        nothing.append(wall([sys.executable, "-c", "pass"]))
        shown.append(wall([sys.executable, "-m", "gpustack", "--help"]))
    ratio = statistics.median([one / other for one, other in zip(shown, nothing, strict=True)])
    return {
        "python -c pass, s": statistics.median(nothing),
        "gpustack --help, s": statistics.median(shown),
        "gpustack --help against python -c pass": ratio,
    }


def wall(command: Sequence[str]) -> float:
    began = time.perf_counter()
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL, cwd=HERE.parent)
    return time.perf_counter() - began


def started(rounds: int, idle: float) -> dict[str, float]:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name) / "data"
        with daemon(folder) as (port, _, _):  # the first start makes the records
            until(port, b"/readyz")
        answers, ready, used = [], [], []
        memory, share, processes = 0, 0.0, 0
        for number in range(rounds):
            with daemon(folder) as (port, began, process):
                answers.append(until(port, b"/healthz") - began)
                ready.append(until(port, b"/readyz") - began)
                used.append(cpu(process.pid))
                if number == rounds - 1:
                    memory, share, processes = resting(process.pid, idle)
    return {
        "second start to first answer of /healthz, s": statistics.median(answers),
        "second start to 200 of /readyz, s": statistics.median(ready),
        "CPU of the daemon until then, s": statistics.median(used),
        f"idle PSS after {idle:g} s, MB": memory / 1e6,
        "idle CPU, percent of one": share * 100,
        "processes": processes,
    }


def resting(pid: int, seconds: float) -> tuple[int, float, int]:
    """Bytes, share of one processor, number of processes; after some time of rest, over as long a time."""
    time.sleep(seconds)
    before = cpu(pid)
    time.sleep(seconds)
    all_of_it = tree(pid)
    return pss(*all_of_it), (cpu(pid) - before) / seconds, len(all_of_it)


@contextmanager
def daemon(folder: Path) -> Iterator[tuple[int, float, subprocess.Popen[bytes]]]:
    port = free_port()
    command = [sys.executable, "-m", "gpustack", "start", "--data-dir", str(folder), "--host", "127.0.0.1"]
    command += ["--port", str(port), "--worker-port", "0", "--service-port-range", free_range(16)]
    folder.mkdir(exist_ok=True)
    with (folder.parent / "log").open("ab") as log:
        began = time.perf_counter()
        process = subprocess.Popen(command, stdout=log, stderr=log, stdin=subprocess.DEVNULL, cwd=HERE.parent)
    try:
        yield port, began, process
    finally:
        process.terminate()
        process.wait(60)


def until(port: int, path: bytes) -> float:
    """When that path first answered 200."""
    request = b"GET %b HTTP/1.1\r\nhost: 127.0.0.1\r\nconnection: close\r\n\r\n" % path
    end = time.perf_counter() + 60
    while time.perf_counter() < end:
        try:
            with socket.create_connection(("127.0.0.1", port), timeout=10) as client:
                client.sendall(request)
                if client.recv(4096).startswith(b"HTTP/1.1 200"):
                    return time.perf_counter()
        except OSError:
            pass
        time.sleep(0.005)
    sys.exit(f"{path.decode()} did not answer 200 within a minute")


if __name__ == "__main__":
    main()
