"""What the gateway costs: an engine asked directly, through nginx, through our daemon and through the plain way.

    python benchmarks/gateway.py [--seconds 2] [--rounds 2] [--remote] [--json]

All in one run, in random order in each round: only ratios between rows mean something. What is measured runs on one
processor, the engine and the load on another. CPU is that of the gateway's own processes, which a busy machine
disturbs least. Needs ``wrk``; leaves out nginx when it is not there. ``--remote`` adds a daemon whose worker is a
process of its own, so that every request takes both hops.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import re
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent))

from benchmarks.measure import cpu, pin, pss  # noqa: E402
from tests.daemon import Daemon, daemon  # noqa: E402
from tests.ports import free_port  # noqa: E402

UNITS = {"us": 1e-3, "ms": 1.0, "s": 1e3}
HEADING = "| | per second | p50 added ms | p99 ms | CPU us each | failed |"
CELLS = ("c1", "c16", "c64", "sse")
NGINX = """
worker_processes 1; daemon off; pid {folder}/nginx.pid; error_log {folder}/nginx.log warn;
events {{ worker_connections 4096; }}
http {{
  access_log off; keepalive_requests 1000000; client_body_buffer_size 128k; map_hash_bucket_size 256;
  client_body_temp_path {folder}/b; proxy_temp_path {folder}/p; fastcgi_temp_path {folder}/f;
  uwsgi_temp_path {folder}/u; scgi_temp_path {folder}/s;
  map $http_authorization $ok {{ default 0; "Bearer {key}" 1; }}
  upstream engine {{ server 127.0.0.1:{engine}; keepalive 128; keepalive_requests 1000000; }}
  server {{
    listen 127.0.0.1:{port} backlog=1024;
    location / {{
      if ($ok = 0) {{ return 401; }}
      proxy_http_version 1.1; proxy_set_header Connection ""; proxy_buffering off; proxy_pass http://engine;
    }}
  }}
}}
"""


@dataclass
class Target:
    """Something that answers at ``port``; ``pids`` are the processes it costs."""

    name: str
    port: int
    pids: list[int] = field(default_factory=list)


@dataclass
class Cell:
    """One measurement. ``rate`` is requests or events a second, times are milliseconds, ``cost`` is CPU us of each."""

    rate: float
    p50: float
    p99: float
    cost: float | None
    bad: int


def main() -> None:
    parser = argparse.ArgumentParser(prog="benchmarks/gateway.py", description=__doc__)
    parser.add_argument("--seconds", type=float, default=2.0)
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--remote", action="store_true")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    if shutil.which("wrk") is None:
        sys.exit("SKIPPED: wrk is not installed, and nothing else here is fast enough (apt-get install wrk)")
    with tempfile.TemporaryDirectory() as name, ExitStack() as stack:
        targets, key = start(Path(name), stack, remote=options.remote)
        for target in targets:
            for pid in target.pids:
                pin(pid, 0)
        results = measured(targets, key, options.rounds, options.seconds)
        if options.json:
            print(json.dumps({"/".join(at): [vars(cell) for cell in cells] for at, cells in results.items()}))
        else:
            show(targets, results)


# --- who is measured


def start(folder: Path, stack: ExitStack, *, remote: bool) -> tuple[list[Target], str]:
    ours = stack.enter_context(daemon(folder / "ours"))
    key = str(ours.call("POST", "/v1/api-keys", {"name": "bench"})[1]["value"])
    engine = deployed(ours)
    targets = [Target("direct", engine), Target("gpustack", port_of(ours), [ours.process.pid])]
    if shutil.which("nginx") is None:
        print("SKIPPED: nginx is not installed (apt-get install nginx-light)", file=sys.stderr)
    else:
        targets.append(stack.enter_context(nginx(folder, engine, key)))
    targets.append(stack.enter_context(plain(engine, key, folder)))
    if remote:
        targets.append(stack.enter_context(two_daemons(folder, key)))
    return targets, key


def deployed(one: Daemon) -> int:
    """Deploy the fake engine; the port it listens on."""
    model = {
        "name": "bench",
        "source": "local_path",
        "local_path": "/nonexistent",
        "backend": "custom",
        "command": f"{sys.executable} {HERE / 'backend.py'} --port {{port}}",
        "health_path": "/health",
    }
    status, answer = one.call("POST", "/v1/models", model)
    assert status == 200, answer
    (instance,) = one.running("bench")
    pin(instance["pid"], 1)
    return int(instance["port"])


def port_of(one: Daemon) -> int:
    return int(one.url.rsplit(":", 1)[1])


@contextmanager
def nginx(folder: Path, engine: int, key: str) -> Iterator[Target]:
    port = free_port()
    settings = folder / "nginx.conf"
    settings.write_text(NGINX.format(folder=folder, key=key, engine=engine, port=port))
    with running(["nginx", "-p", str(folder), "-c", str(settings)], folder / "nginx.out") as process:
        wait_for(port, key)
        children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
        yield Target("nginx", port, [process.pid, *map(int, children)])


@contextmanager
def plain(engine: int, key: str, folder: Path) -> Iterator[Target]:
    port = free_port()
    command = [sys.executable, str(HERE / "plain.py"), str(port), str(engine), key]
    with running(command, folder / "plain.out") as process:
        wait_for(port, key)
        yield Target("quart + httpx", port, [process.pid])


@contextmanager
def two_daemons(folder: Path, key: str) -> Iterator[Target]:
    """A server and a worker apart, with the key of the first daemon."""
    with daemon(folder / "server", "--disable-worker") as server:
        token = (server.data_dir / "token").read_text().strip()
        there = [
            "--server-url",
            server.url,
            "--token",
            token,
            "--worker-name",
            "apart",
            "--worker-ip",
            "127.0.0.1",
        ]
        with daemon(folder / "worker", *there) as worker:
            deployed(server)
            own = str(server.call("POST", "/v1/api-keys", {"name": "bench"})[1]["value"])
            target = Target(
                "gpustack, worker apart", port_of(server), [server.process.pid, worker.process.pid]
            )
            KEYS[target.name] = own
            yield target


KEYS: dict[str, str] = {}
"""Of targets that have a key of their own."""


@contextmanager
def running(command: list[str], log: Path) -> Iterator[subprocess.Popen[bytes]]:
    with log.open("wb") as out:
        process = subprocess.Popen(command, stdout=out, stderr=out, stdin=subprocess.DEVNULL)
    try:
        yield process
    finally:
        process.terminate()
        process.wait(10)


def wait_for(port: int, key: str) -> None:
    body = json.dumps({"model": "bench", "messages": []}).encode()
    for _ in range(200):
        request = urllib.request.Request(f"http://127.0.0.1:{port}/v1/chat/completions", body)
        request.add_header("authorization", f"Bearer {key}")
        request.add_header("content-type", "application/json")
        try:
            with urllib.request.urlopen(request, timeout=5) as answer:
                assert b"quick brown" in answer.read()
                return
        except OSError:
            time.sleep(0.05)
    sys.exit(f"nothing answers on port {port}")


# --- measuring


def measured(
    targets: list[Target], key: str, rounds: int, seconds: float
) -> dict[tuple[str, str], list[Cell]]:
    results: dict[tuple[str, str], list[Cell]] = {}
    rng = random.Random(1)
    for _ in range(rounds):
        for cell in CELLS:
            for target in rng.sample(targets, len(targets)):
                load = streams if cell == "sse" else wrk(int(cell[1:]))
                before = cpu(*target.pids)
                count, found = load(target, KEYS.get(target.name, key), seconds)
                if target.pids:
                    found.cost = (cpu(*target.pids) - before) * 1e6 / max(count, 1)
                results.setdefault((cell, target.name), []).append(found)
    return results


Load = Callable[[Target, str, float], tuple[int, Cell]]


def wrk(connections: int) -> Load:
    def load(target: Target, key: str, seconds: float) -> tuple[int, Cell]:
        command = [
            "wrk",
            "-t1",
            f"-c{connections}",
            f"-d{max(1, round(seconds))}s",
            "--timeout",
            "10",
            "--latency",
        ]
        url = f"http://127.0.0.1:{target.port}/v1/chat/completions"
        out = ran([*command, "-s", str(HERE / "ask.lua"), url], {"KEY": key, "MODEL": "bench"})
        bad = re.search(r"Non-2xx or 3xx responses: (\d+)", out)
        count = int(found(r"(\d+) requests in", out)[0])
        rate = float(found(r"Requests/sec:\s+([\d.]+)", out)[0])
        return count, Cell(rate, latency(50, out), latency(99, out), None, int(bad[1]) if bad else 0)

    return load


def streams(target: Target, key: str, seconds: float) -> tuple[int, Cell]:
    """32 streams of 50 events a second each."""
    command = [sys.executable, str(HERE / "streams.py"), str(target.port), key, "bench", "32", "40", "50"]
    said = json.loads(ran([*command, str(max(seconds, 2))], {}))
    if said["first_p50_ms"] is None:
        sys.exit(f"no stream of {target.name} began: {said}")
    cell = Cell(said["events_s"], said["first_p50_ms"], said["first_p99_ms"], None, said["errors"])
    return said["events"], cell


def ran(command: list[str], env: Mapping[str, str]) -> str:
    if (os.cpu_count() or 1) > 1 and shutil.which("taskset"):
        command = ["taskset", "-c", "1", *command]
    done = subprocess.run(command, env={**os.environ, **env}, capture_output=True, text=True, check=False)
    if done.returncode:
        sys.exit(f"{command[0]} failed: {done.stdout}{done.stderr}")
    return done.stdout


def latency(quantile: int, out: str) -> float:
    value, unit = found(rf"{quantile}%\s+([\d.]+)(us|ms|s)", out)
    return float(value) * UNITS[unit]


def found(pattern: str, text: str) -> tuple[str, ...]:
    match = re.search(pattern, text)
    if match is None:
        sys.exit(f"no {pattern!r} in: {text}")
    return match.groups()


# --- telling


def show(targets: list[Target], results: Mapping[tuple[str, str], list[Cell]]) -> None:
    for cell in CELLS:
        what = "32 streams, 50 events/s each" if cell == "sse" else f"{cell[1:]} connections"
        print(f"\n{what}\n\n{HEADING}\n{'| --- ' * (HEADING.count('|') - 1)}|")
        base = results[cell, "direct"]
        for target in targets:
            rows = results[cell, target.name]
            added = median([row.p50 - one.p50 for row, one in zip(rows, base, strict=True)])
            cost = "" if rows[0].cost is None else f"{median([row.cost or 0 for row in rows]):.0f}"
            print(
                f"| {target.name} | {median([row.rate for row in rows]):.0f} | {added:+.2f} |"
                f" {median([row.p99 for row in rows]):.1f} | {cost} | {sum(row.bad for row in rows)} |"
            )
    print("\nratios, medians of the rounds\n")
    for other in [target.name for target in targets if target.name not in ("direct", "gpustack")]:
        for cell in CELLS:
            print(f"- {cell}: {ratio(results, cell, other)}")
    print("\nmemory (PSS): " + ", ".join(f"{t.name} {pss(*t.pids) / 1e6:.0f} MB" for t in targets if t.pids))


def ratio(results: Mapping[tuple[str, str], list[Cell]], cell: str, other: str) -> str:
    pairs = list(zip(results[cell, "gpustack"], results[cell, other], strict=True))
    cost = median([(mine.cost or 0) / max(theirs.cost or 0, 1e-9) for mine, theirs in pairs])
    rate = median([mine.rate / max(theirs.rate, 1e-9) for mine, theirs in pairs])
    return f"gpustack against {other}: {cost:.2f} x the CPU, {rate:.2f} x the rate"


def median(values: list[Any]) -> float:
    return float(statistics.median(values))


if __name__ == "__main__":
    main()
