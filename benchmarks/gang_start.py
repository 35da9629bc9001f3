"""What the start of a gang costs beyond the same commands by hand.

    python benchmarks/gang_start.py [--rounds 5] [--json]

A GGUF model of 0.9 GB on two workers over llama.cpp's RPC, both on this machine: from the request that deploys it until
it runs, against its RPC server and ``llama-server`` started with the very same commands until ``/health`` says 200, one
after the other in each round. Needs the programs that ``tests/make-llama-rpc`` builds.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.request
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent))

from tests.daemon import Daemon  # noqa: E402
from tests.e2e.test_machines import deploy, server_of  # noqa: E402
from tests.models.hollow import make_hollow  # noqa: E402
from tests.worker.test_real_rpc import SHAPE, deployment, machine  # noqa: E402

WITHIN = 300.0


def main() -> None:
    parser = argparse.ArgumentParser(prog="benchmarks/gang_start.py", description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    ours, hand = measured(options.rounds)
    beyond = [one - other for one, other in zip(ours, hand, strict=True)]
    figures = {
        "deployed until it runs, s": statistics.median(ours),
        "the same commands by hand, s": statistics.median(hand),
        "beyond that, median of the pairs, s": statistics.median(beyond),
    }
    if options.json:
        print(json.dumps({**figures, "pairs": list(zip(ours, hand, strict=True))}))
        return
    for name, value in figures.items():
        print(f"{name:40} {value:.2f}")


def measured(rounds: int) -> tuple[list[float], list[float]]:
    """Seconds of each round: with the cluster, and by hand."""
    ours, hand = [], []
    with tempfile.TemporaryDirectory() as name, ExitStack() as stack:
        folder = Path(name)
        model = folder / "big.gguf"
        make_hollow(model, SHAPE, "f16")
        model.read_bytes()  # both find it in the page cache
        server = stack.enter_context(server_of(folder))
        for worker in ("one", "two"):
            stack.enter_context(machine(server, worker))
        for _ in range(rounds):
            seconds, commands = with_cluster(server, model)
            ours.append(seconds)
            hand.append(by_hand(*commands))
    return ours, hand


def with_cluster(server: Daemon, model: Path) -> tuple[float, tuple[list[str], list[str]]]:
    """Seconds from the deployment until it runs, and the commands of its two processes; it is gone then."""
    began = time.perf_counter()
    number = deploy(server, deployment(model))
    running = until(lambda: [one for one in server.instances("big") if one["state"] == "running"])
    seconds = time.perf_counter() - began
    [instance] = running
    [lent] = instance["distributed_servers"]["subordinate_workers"]
    commands = command_of(lent["pid"]), command_of(instance["pid"])
    server.call("DELETE", f"/v1/models/{number}")
    until(lambda: not server.instances("big") and not any(map(is_alive, (lent["pid"], instance["pid"]))))
    return seconds, commands


def by_hand(lender: list[str], main: list[str]) -> float:
    """Seconds until the same two commands serve."""
    with ExitStack() as stack:
        began = time.perf_counter()
        start(stack, lender)
        until(lambda: listens(value_of(lender, "-H"), int(value_of(lender, "-p"))))
        start(stack, main)
        until(lambda: is_healthy(int(value_of(main, "--port"))))
        return time.perf_counter() - began


def start(stack: ExitStack, command: list[str]) -> None:
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    stack.callback(process.wait)
    stack.callback(process.kill)


def command_of(pid: int) -> list[str]:
    return Path(f"/proc/{pid}/cmdline").read_text().split("\0")[:-1]


def value_of(command: list[str], flag: str) -> str:
    return command[command.index(flag) + 1]


def is_alive(pid: int) -> bool:
    with suppress(ProcessLookupError):
        os.kill(pid, signal.SIG_DFL)
        return True
    return False


def listens(host: str, port: int) -> bool:
    with suppress(OSError), socket.create_connection((host, port), timeout=1.0):
        return True
    return False


def is_healthy(port: int) -> bool:
    with suppress(OSError), urllib.request.urlopen(f"http://127.0.0.1:{port}/health", timeout=2.0) as answer:
        return bool(answer.status == 200)
    return False


def until(holds: Any) -> Any:
    end = time.perf_counter() + WITHIN
    while time.perf_counter() < end:
        if found := holds():
            return found
        time.sleep(0.02)
    raise TimeoutError


if __name__ == "__main__":
    main()
