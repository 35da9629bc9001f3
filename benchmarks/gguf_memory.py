"""What the embedded llama.cpp would allocate for a model of any architecture, against what is estimated.

    python benchmarks/gguf_memory.py SHAPES.json [--only NAME] [--settings default,128k]

SHAPES.json has for each name ``architecture``, ``tied`` (no output layer of its own), ``keys`` (of the header, named
within the architecture) and, where they matter, ``optional`` tensors with their sides. A hollow file is written for
each: the loader says which tensor is missing or of which shape it should be, until it is content. Then the engine is
asked in each setting; it reserves its buffers without allocating them, so that models of any size can be asked about.
Each answer is a line of JSON, in MiB; ``entry`` is what ``tests/policy/gguf_table.json`` has of a model. Exit code 1
when an estimate is more than 5 % off.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import select
import signal
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import attrs

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from gpustack.artifacts.headers.gguf import read_header  # noqa: E402
from gpustack.artifacts.headers.gguf_facts import gguf_facts  # noqa: E402
from gpustack.domain.facts import ModelFacts  # noqa: E402
from gpustack.domain.unit import MIB  # noqa: E402
from gpustack.policy.estimate.gguf import GgufSettings, estimate  # noqa: E402
from tests.models.any_hollow import Value, write_hollow  # noqa: E402
from tests.policy.gguf_table import SETTINGS  # noqa: E402
from tests.ports import free_port  # noqa: E402

SECONDS = 10.0
"""The engine answers within a tenth of that, or it is stuck on its way to an end."""
MOST_TRIES = 3000
AGAIN = 6
"""Its log is written by a thread, whose last lines are lost when it ends by an assertion: then it is asked again."""
DONE = (b"reserve took", b"threadpool init")
USUAL: tuple[tuple[str, Value], ...] = (
    ("epsilon", 1e-6), ("context_length", 131072), ("rope.dimension_count", 64), ("scale", 1.0), ("freq_base", 1e4),
    ("gating_func", 1), ("softcapping", 30.0), ("swiglu_clamp_exp", 7.0), ("swiglu_clamp_shexp", 7.0),
    ("lora_rank", 64), ("expert_weights_norm", True), ("dimension_sections", [11, 11, 10, 0]),
    ("time_mix_extra_dim", 32),
    ("time_decay_extra_dim", 64), ("rescale_every_n_layers", 6), ("group_norm_groups", 1), ("l_cache", 3),
)  # fmt: skip
"""Keys that a loader insists on and that do not decide about memory, by the ends of their names."""


class Unloadable(Exception):
    """The engine does not load such a model."""


@attrs.define
class Shape:
    """A model as it is described, and as the loader wants it."""

    name: str
    architecture: str
    tied: bool
    keys: dict[str, Value]
    tensors: dict[str, list[int]] = attrs.field(factory=dict)

    @classmethod
    def of(cls, name: str, said: Mapping[str, Any]) -> Shape:
        keys = {"context_length": 131072, **said["keys"]}
        found = cls(name, said["architecture"], said["tied"], keys, dict(said.get("optional", {})))
        table = [keys["embedding_length"], keys["vocab_size"]]
        found.tensors["token_embd.weight"] = table
        if not found.tied:
            found.tensors["output.weight"] = list(table)
        return found

    def learn(self, log: str) -> bool:
        """Change what the loader complains about; whether there was anything."""
        if key := re.search(r"key not found in model: ([\w.-]+)", log):
            name = key[1].removeprefix(f"{self.architecture}.")
            usual = next((value for end, value in USUAL if name.endswith(end)), None)
            if usual is None:
                raise Unloadable(f"{self.name}: the loader wants the key {name}")
            self.keys[name] = usual
        elif missing := re.search(r"tensor '([^']+)' not found|missing tensor '([^']+)'", log):
            self._put(missing[1] or missing[2], [1], new=True)
        elif wrong := re.search(r"tensor '([^']+)' has wrong shape; expected ([\d, ]+), got", log):
            sides = [int(side) for side in wrong[2].split(",")]
            while len(sides) > 1 and sides[-1] == 1 and "_exps" not in wrong[1]:
                sides.pop()
            self._put(wrong[1], sides, new=False)
        else:
            return False
        return True

    def _put(self, name: str, sides: list[int], *, new: bool) -> None:
        """A tensor, and those of the same role in all later layers: they are alike, or the loader will say."""
        layer = re.match(r"(.*?blk\.)(\d+)\.(.*)", name)
        if layer is None:
            self.tensors[name] = sides
            return
        for number in range(int(layer[2]), int(str(self.keys["block_count"]))):
            later = f"{layer[1]}{number}.{layer[3]}"
            if new:
                self.tensors.setdefault(later, list(sides))
            elif later in self.tensors:
                self.tensors[later] = list(sides)

    def drop_unused(self, log: str) -> bool:
        """Forget tensors that the loader did not ask for; whether there were any."""
        used = set(re.findall(r"create_tensor: loading tensor ([^\s,]+)", log))
        unused = [name for name in self.tensors if used and name not in used]
        for name in unused:
            del self.tensors[name]
        return bool(unused)


def fill(shape: Shape, path: Path) -> int:
    """Write the file as the loader wants it, and return the bytes of its weights. Raises Unloadable."""
    silent = 0
    for _ in range(MOST_TRIES):
        weights = write_hollow(path, shape.architecture, shape.keys, shape.tensors)
        log = engine_log(path, GgufSettings(ctx=512), verbosity=10)
        if shape.learn(log):
            silent = 0
        elif shape.drop_unused(log):
            continue
        elif "KV buffer size" in log or "compute buffer size" in log:
            return weights
        elif (silent := silent + 1) == AGAIN:
            break
    faults = [line for line in log.splitlines() if "rror" in line or "ASSERT" in line]
    raise Unloadable(f"{shape.name}: {' | '.join(faults)[:400]}")


def engine_log(path: Path, asked: GgufSettings, verbosity: int) -> str:
    """What the engine says until its buffers are reserved, in a child that is ended then."""
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        os.setsid()
        os.dup2(writer, 1)
        os.dup2(writer, 2)
        _serve(path, asked, verbosity)
    os.close(writer)
    said, deadline = b"", time.monotonic() + SECONDS
    while not any(word in said for word in DONE):
        ready, _, _ = select.select([reader], [], [], max(0.0, deadline - time.monotonic()))
        more = os.read(reader, 1 << 16) if ready else b""
        if not more:
            break
        said += more
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    os.close(reader)
    return said.decode("utf-8", "replace")


def _serve(path: Path, asked: GgufSettings, verbosity: int) -> None:
    import xllamacpp  # type: ignore[import-untyped]  # the wheel brings no stubs

    params = xllamacpp.CommonParams()
    params.model.path = str(path)
    params.n_ctx, params.n_parallel, params.n_ubatch = asked.ctx, asked.parallel, asked.ubatch
    params.kv_unified, params.swa_full, params.embedding = asked.unified, asked.full_window, not asked.logits
    params.cache_type_k = getattr(xllamacpp.ggml_type, f"GGML_TYPE_{asked.key_type.upper()}")
    params.cache_type_v = getattr(xllamacpp.ggml_type, f"GGML_TYPE_{asked.value_type.upper()}")
    if not asked.flash_attention:
        params.flash_attn_type = xllamacpp.llama_flash_attn_type.LLAMA_FLASH_ATTN_TYPE_DISABLED
    params.no_alloc, params.load_mode = True, xllamacpp.llama_load_mode.LLAMA_LOAD_MODE_NONE
    params.fit_params = params.warmup = params.ui = False
    params.no_extra_bufts, params.cache_ram_mib, params.verbosity = True, 0, verbosity
    params.port = free_port()
    try:
        xllamacpp.Server(params)
    except RuntimeError:
        time.sleep(0.05)  # for the thread that writes its log
    os._exit(0)


def figures(path: Path, asked: GgufSettings) -> list[float] | None:
    """KV cache, state, compute and output in MiB; ``None`` where the engine refuses the setting."""
    for number in range(AGAIN):
        log = engine_log(path, asked, verbosity=4 if number % 2 == 0 else 10)
        if "compute buffer size" in log:
            patterns = (
                r"llama_kv_cache\w*: size =\s*([\d.]+)",
                r"llama_memory_recurrent: size =\s*([\d.]+)",
                r"compute buffer size =\s*([\d.]+)",
                r"output buffer size =\s*([\d.]+)",
            )
            return [round(sum(float(size) for size in re.findall(pattern, log)), 2) for pattern in patterns]
    return None


def measure(shape: Shape, path: Path, names: list[str]) -> Iterator[dict[str, object]]:
    """A line for each setting, and the entry of the table. Raises Unloadable."""
    weights = fill(shape, path) / MIB
    facts = gguf_facts([read_header(path)], file_size=path.stat().st_size)
    rows = {}
    for name in names:
        found = figures(path, SETTINGS[name])
        if found is None:
            yield {"model": shape.name, "setting": name, "refused": True}
            continue
        total = weights + sum(found)
        rows[name] = [*found, round(total, 1)]
        guess = estimate(facts, SETTINGS[name]).host.total / MIB
        wrong = round(guess / total - 1, 4)
        yield {
            "model": shape.name,
            "setting": name,
            "engine": round(total),
            "estimate": round(guess),
            "error": wrong,
        }
    yield {"model": shape.name, "entry": entry(shape, facts, weights, rows)}


def entry(
    shape: Shape, facts: ModelFacts, weights: float, rows: Mapping[str, list[float]]
) -> dict[str, object]:
    """The model as ``tests/policy/gguf_table.json`` has it."""
    kinds = [kind for kind in ("gated", "dense", "mixed") if getattr(facts.shape, kind)]
    found: dict[str, object] = {
        "architecture": shape.architecture,
        "weights": round(weights, 1),
        "tied": shape.tied,
    }
    return {
        **found,
        "feed_forward": kinds,
        "feed_forward_rows": facts.shape.rows,
        "keys": shape.keys,
        "rows": rows,
    }


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("shapes", type=Path)
    parser.add_argument("--only", help="the name of one shape")
    parser.add_argument(
        "--settings", help="names of settings, with commas; all of text, or all of vectors, by default"
    )
    given = parser.parse_args()
    os.environ["GGML_NO_BACKTRACE"] = "1"
    worst = 0.0
    with tempfile.TemporaryDirectory() as folder:
        for name, said in json.loads(given.shapes.read_text()).items():
            if given.only in (None, name):
                vectors = "pooling_type" in said["keys"]
                names = [one for one, asked in SETTINGS.items() if asked.logits is not vectors]
                wanted = given.settings.split(",") if given.settings else names
                try:
                    for line in measure(Shape.of(name, said), Path(folder) / "hollow.gguf", wanted):
                        worst = max(worst, abs(float(str(line.get("error", 0)))))
                        print(json.dumps(line), flush=True)
                except Unloadable as fault:
                    print(json.dumps({"model": name, "unloadable": str(fault)}), flush=True)
    return 1 if worst > 0.05 else 0


if __name__ == "__main__":
    sys.exit(main())
