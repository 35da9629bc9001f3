"""What a llama-server takes of an NVIDIA GPU, against what is estimated and claimed for it.

    python benchmarks/device_memory.py LLAMA_SERVER [--seconds 600] [--only WORDS] [--verbose]

Each case is a line of JSON, in MiB. The models are hollow: true shapes over holes in sparse files, so nothing is
fetched. The server is started as a worker would start it, asked as many long prompts at a time as it has slots, and
ended. ``engine`` is what the log says of buffers on the device and the host, ``estimate`` the same by our formulas,
``claim`` what the scheduler sets aside; ``taken`` is what the driver says the device lost (``loaded``: before the
requests, ``peak``: the most while they ran), and ``beside`` what of the peak is none of the engine's own buffers: a
claim's footprint and margin are for that.
"""

from __future__ import annotations

import argparse
import contextlib
import http.client
import json
import os
import re
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

import attrs

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from gpustack.artifacts.headers.gguf import read_header  # noqa: E402
from gpustack.artifacts.headers.gguf_facts import gguf_facts  # noqa: E402
from gpustack.domain.artifact import ModelSource, SourceKind  # noqa: E402
from gpustack.domain.facts import ModelFacts  # noqa: E402
from gpustack.domain.instance import Claim, ModelInstance, Placement  # noqa: E402
from gpustack.domain.model import Category, Model  # noqa: E402
from gpustack.domain.unit import MIB  # noqa: E402
from gpustack.domain.worker import EngineBuild  # noqa: E402
from gpustack.engines.engine import LaunchContext  # noqa: E402
from gpustack.engines.llama_cpp import ENGINE, slots  # noqa: E402
from gpustack.policy.estimate.demand import demand_of, gguf_settings  # noqa: E402
from gpustack.policy.estimate.gguf import MemoryNeed, estimate  # noqa: E402
from gpustack.worker.engine_process import inherited_environment  # noqa: E402
from tests.models import SHAPES, make_embedder, make_hollow  # noqa: E402
from tests.ports import free_port  # noqa: E402

EMBEDDER = "tiny-embedder"
LONGEST_PROMPT = 1536
BUFFER = re.compile(r"(\S+)\s+(model|KV|RS|compute|output) buffer size\s*=\s*([\d.]+) MiB")
TELLING = ("--verbosity", "4")
"""Less, and it does not say how large its buffers are."""
PERIOD = 0.02


@attrs.frozen
class Case:
    """A model and the settings of a deployment; ``layers`` on the GPU, all of them by default."""

    shape: str
    parameters: str = ""
    layers: int | None = None
    quantisation: str = "q4_k_m"
    categories: tuple[str, ...] = ()

    @property
    def name(self) -> str:
        words = [self.shape, self.quantisation, *self.categories, self.parameters]
        return " ".join([*filter(None, words), *([] if self.layers is None else [f"{self.layers} layers"])])


# the most telling ones first: time may end before the list does
CASES = (
    Case("llama-3.1-8b"),
    Case("llama-3.1-8b", "--ctx-size 4096 --parallel 1"),
    Case("llama-3.1-8b", "--ctx-size 32768 --parallel 1"),
    Case("llama-3.1-8b", "--ctx-size 32768 --parallel 1 --flash-attn off"),
    Case("llama-3.1-8b", "--ctx-size 32768 --parallel 1 --cache-type-k q8_0 --cache-type-v q8_0"),
    Case("llama-3.1-8b", "--ctx-size 32768 --parallel 4"),
    Case("llama-3.1-8b", "--ctx-size 32768 --parallel 4 --kv-unified"),
    Case("llama-3.1-8b", "--ctx-size 8192 --parallel 1", layers=16),
    Case("qwen3-30b-a3b"),
    Case("qwen3-30b-a3b", "--ctx-size 32768 --parallel 1"),
    Case("qwen3-30b-a3b", "--ctx-size 8192 --parallel 1", layers=24),
    Case("qwen3-0.6b", categories=(Category.EMBEDDING,)),
    Case(EMBEDDER, "--ctx-size 512", categories=(Category.EMBEDDING,), quantisation="f16"),
    Case("llama-3.2-1b", quantisation="f16"),
    Case("llama-3.1-8b", "--ctx-size 32768 --parallel 1 --ubatch-size 2048"),
    Case("gemma-3-4b"),
    Case("deepseek-v2-lite"),
    Case("qwen2.5-7b"),
    Case("qwen3-30b-a3b", "--ctx-size 16384 --parallel 1 --flash-attn off"),
    Case("gemma-3-4b", "--ctx-size 32768 --parallel 1 --flash-attn off"),
    Case("llama-3.2-1b", "--ctx-size 4096 --parallel 1", quantisation="q8_0"),
    Case("llama-3.1-8b", "--ctx-size 131072 --parallel 1"),
    Case("llama-3.1-8b", "--ctx-size 8192 --parallel 1", quantisation="f16"),
    Case("llama-3.3-70b", "--ctx-size 8192 --parallel 1"),
)


class Gpu:
    """The first card, asked of its driver's library."""

    def __init__(self) -> None:
        import pynvml  # type: ignore[import-untyped]  # it comes without types

        self._nvml = pynvml
        pynvml.nvmlInit()
        self._handle = pynvml.nvmlDeviceGetHandleByIndex(0)

    def used(self) -> int:
        seen = self._nvml.nvmlDeviceGetMemoryInfo(self._handle, self._nvml.nvmlMemory_v2)
        return int(seen.total - seen.free)

    def used_by(self, pid: int) -> int | None:
        """What the driver itself counts for the process; it does not count everything."""
        with contextlib.suppress(self._nvml.NVMLError):
            for process in self._nvml.nvmlDeviceGetComputeRunningProcesses(self._handle):
                if process.pid == pid:
                    return None if process.usedGpuMemory is None else int(process.usedGpuMemory)
        return None

    @contextlib.contextmanager
    def peak(self) -> Iterator[list[int]]:
        """A list whose one number grows to the most that was used within the block."""
        most, over = [self.used()], threading.Event()

        def watch() -> None:
            while not over.wait(PERIOD):
                most[0] = max(most[0], self.used())

        watcher = threading.Thread(target=watch)
        watcher.start()
        try:
            yield most
        finally:
            over.set()
            watcher.join()


@attrs.frozen
class Server:
    """A running llama-server."""

    process: subprocess.Popen[bytes]
    port: int
    log: Path

    def ask(self, method: str, path: str, body: object = None, timeout: float = 300.0) -> tuple[int, Any]:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=timeout)
        with contextlib.closing(connection):
            connection.request(
                method, path, None if body is None else json.dumps(body), {"content-type": "application/json"}
            )
            answer = connection.getresponse()
            return answer.status, answer.read()[:2000]

    def ready(self, within: float) -> None:
        end = time.monotonic() + within
        while time.monotonic() < end:
            if self.process.poll() is not None:
                raise RuntimeError(f"it ended with {self.process.returncode}: {self.tail()}")
            with contextlib.suppress(OSError, http.client.HTTPException):
                if self.ask("GET", "/health", timeout=5.0)[0] == 200:
                    return
            time.sleep(0.1)
        raise RuntimeError(f"it was not ready within {within:g} s: {self.tail()}")

    def tail(self) -> str:
        return self.log.read_text(errors="replace")[-1500:]

    def buffers(self) -> dict[str, dict[str, float]]:
        """Place (device, host) → kind → MiB. What is planned anew is said again: then the last word counts."""
        planned: dict[tuple[str, str], float] = {}
        for place, kind, size in BUFFER.findall(self.log.read_text(errors="replace")):
            again = kind in ("compute", "output")
            planned[place, kind] = float(size) + (0 if again else planned.get((place, kind), 0))
        found: dict[str, dict[str, float]] = {"device": {}, "host": {}}
        for (place, kind), size in planned.items():
            sums = found["device" if place.startswith("CUDA") and place != "CUDA_Host" else "host"]
            sums[kind] = round(sums.get(kind, 0) + size, 1)
        return found


@contextlib.contextmanager
def running(argv: Sequence[str], env: dict[str, str], port: int, log: Path) -> Iterator[Server]:
    with log.open("wb") as out:
        process = subprocess.Popen(argv, stdin=subprocess.DEVNULL, stdout=out, stderr=out, env=env)
    try:
        yield Server(process, port, log)
    finally:
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(10)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait(10)


def measure(case: Case, gpu: Gpu, server: str, folder: Path, verbose: bool) -> dict[str, Any]:
    """One case from start to end. Raises RuntimeError where the server does not start or answer."""
    path, facts = made(case, folder)
    model = Model(
        name="m",
        source=ModelSource(kind=SourceKind.LOCAL_PATH, local_path=str(path)),
        backend_parameters=(*case.parameters.split(), *TELLING),
        categories=case.categories or (Category.LLM,),
    )
    demand = demand_of(model, facts, ENGINE.name)
    layers = demand.total_layers if case.layers is None else case.layers
    claimed = demand.devices((1.0,), layers)
    expected = estimate(facts, attrs.evolve(gguf_settings(model), shares=(1.0,), offload_layers=layers))
    claim = Claim(
        ram=claimed.ram,
        vram={0: claimed.vram[0]},
        offload_layers=layers,
        total_layers=demand.total_layers,
        slots=demand.slots,
    )
    port = free_port()
    launch = ENGINE.launch(_context(model, claim, str(path), port, server))
    env = {**inherited_environment(os.environ), **launch.env}
    before = gpu.used()
    began = time.monotonic()
    with running(launch.argv, env, port, folder / "server.log") as engine, gpu.peak() as peak:
        engine.ready(120.0)
        started = time.monotonic() - began
        loaded, first_peak = gpu.used() - before, peak[0] - before
        host_loaded = _host(engine.process.pid)
        _requests(case, model, facts, engine)
        asked, of_process = gpu.used() - before, gpu.used_by(engine.process.pid)
        host = _host(engine.process.pid)
        buffers = engine.buffers()
        most = peak[0] - before
        if verbose:
            sys.stderr.write(f"--- {case.name}\n{engine.log.read_text(errors='replace')}\n")
    own = sum(buffers["device"].values())
    return {
        "case": case.name,
        "slots": demand.slots,
        "engine": buffers,
        "estimate": {"device": _need(expected.devices[0]), "host": _need(expected.host)},
        "claim": {"device": _mib(claimed.vram[0]), "host": _mib(claimed.ram)},
        "taken": {
            "loaded": _mib(loaded),
            "loaded_peak": _mib(first_peak),
            "asked": _mib(asked),
            "peak": _mib(most),
            "by_process": None if of_process is None else _mib(of_process),
        },
        "beside": round(most / MIB - own, 1),
        "left_of_claim": _mib(claimed.vram[0] - most),
        "host_loaded": host_loaded,
        "host": host,
        "seconds": [round(started, 1), round(time.monotonic() - began, 1)],
    }


def made(case: Case, folder: Path) -> tuple[Path, ModelFacts]:
    path = folder / f"{case.shape}-{case.quantisation}.gguf"
    if not path.exists():
        if case.shape == EMBEDDER:
            make_embedder(path)
        else:
            make_hollow(path, case.shape, case.quantisation)
    return path, gguf_facts([read_header(path)], file_size=path.stat().st_size)


def _context(model: Model, claim: Claim, path: str, port: int, server: str) -> LaunchContext:
    placement = Placement(worker_id=1, gpu_indexes=(0,), claim=claim)
    instance = ModelInstance(name="m-1", model_id=1, model_name="m", source=model.source, placement=placement)
    return LaunchContext(
        model=model,
        instance=instance,
        placement=placement,
        model_path=path,
        port=port,
        build=EngineBuild(engine=ENGINE.name, origin="given", path=server),
        data_dir=str(Path(path).parent),
        device_type="cuda",
        cpu_count=os.cpu_count(),
    )


def _requests(case: Case, model: Model, facts: ModelFacts, engine: Server) -> None:
    """As many prompts at a time as there are slots, each longer than a micro-batch where it may be."""
    divided = slots(model, None)
    room = divided.cells // divided.count
    length = min(LONGEST_PROMPT, room - 64, (facts.context_length or room) - 64)
    words = max((facts.vocabulary or 0) - 1, 1)
    tokens = [1 + number % words for number in range(length)]
    is_text = not case.categories
    path = "/completion" if is_text else "/embedding"
    body = (
        {"prompt": tokens, "n_predict": 16, "ignore_eos": True, "cache_prompt": False}
        if is_text
        else {"content": tokens}
    )
    with ThreadPoolExecutor(divided.count) as pool:
        ask = partial(engine.ask, "POST", path, body)
        answers = [pool.submit(ask) for _ in range(divided.count)]
        found = [answer.result() for answer in answers]
    for status, said in found:
        if status != 200:
            raise RuntimeError(f"{path} was answered with {status}: {said!r} {engine.tail()}")


def _host(pid: int) -> dict[str, int]:
    """MiB of the process in host memory: its own, and mapped from files or shared (pinned memory is)."""
    words = (line.split() for line in Path(f"/proc/{pid}/status").read_text().splitlines())
    return {word[0][3:-1].lower(): int(word[1]) >> 10 for word in words if word[0].startswith("Rss")}


def _need(need: MemoryNeed) -> dict[str, float]:
    return {"model": _mib(need.weights), "KV": _mib(need.kv), "compute": _mib(need.compute)}


def _mib(size: int) -> float:
    return round(size / MIB, 1)


def bare(gpu: Gpu) -> dict[str, Any]:
    """What a process takes that has a context and nothing else."""
    before = gpu.used()
    process = subprocess.Popen(
        [sys.executable, "-m", "tests.gpu.program", "hold", "0"],
        stdout=subprocess.PIPE,
        cwd=ROOT,
    )
    try:
        assert process.stdout is not None
        process.stdout.readline()
        time.sleep(0.5)
        of_process = gpu.used_by(process.pid)
        return {
            "case": "a context alone",
            "before": _mib(before),
            "taken": _mib(gpu.used() - before),
            "by_process": None if of_process is None else _mib(of_process),
        }
    finally:
        process.kill()
        process.wait(10)


def main() -> None:
    parser = argparse.ArgumentParser(prog="benchmarks/device_memory.py", description=__doc__)
    parser.add_argument("server", help="path of a llama-server built for CUDA")
    parser.add_argument("--seconds", type=float, default=600.0, help="begin no case after so long")
    parser.add_argument("--only", default="", help="cases whose name contains this")
    parser.add_argument(
        "--verbose", action="store_true", help="print the server's log of each case to stderr"
    )
    asked = parser.parse_args()
    unknown = [case.shape for case in CASES if case.shape not in SHAPES and case.shape != EMBEDDER]
    assert not unknown, unknown
    end = time.monotonic() + asked.seconds
    gpu = Gpu()
    say({**bare(gpu), "again": bare(gpu)})
    with tempfile.TemporaryDirectory() as folder:
        for case in CASES:
            if asked.only not in case.name:
                continue
            if time.monotonic() > end:
                say({"case": case.name, "left_out": "no time left"})
                continue
            try:
                say(measure(case, gpu, asked.server, Path(folder), asked.verbose))
            except (RuntimeError, OSError) as fault:
                say({"case": case.name, "fault": str(fault)})


def say(row: dict[str, Any]) -> None:
    print(json.dumps(row), flush=True)


if __name__ == "__main__":
    main()
