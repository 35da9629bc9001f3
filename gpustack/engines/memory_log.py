"""What engines write in their logs about the memory that they take. Lines that are not known say nothing.

llama.cpp names each buffer (``CUDA0 compute buffer size = 254.00 MiB``). vLLM and SGLang have a line for weights, cache
and graphs of each process; what they call GB is 2^30 bytes.
"""

from __future__ import annotations

import re
from collections.abc import Iterable

from gpustack.domain.memory_use import MAPPED, MemorySide, MemoryTerm, TermBytes, term_name
from gpustack.domain.unit import GIB

_LARGEST = 1 << 50
"""Bytes: what is said to be larger is not believed."""
_LONGEST_LINE = 1000
"""Characters of a line that are looked at."""
_UNITS = {"KiB": 1 << 10, "MiB": 1 << 20, "GiB": 1 << 30}


_BUFFER = re.compile(
    r"(?P<place>\S+)\s+(?P<kind>model|KV|RS|compute|output) buffer size"
    r"\s*=\s*(?P<size>\d+(?:\.\d+)?) (?P<unit>[KMG]iB)\b"
)
_CONTEXT = re.compile(r"llama_context: n_ctx\s+=")
"""With this line another context begins: that of a draft model, or the first one."""
_KINDS = {
    "model": MemoryTerm.WEIGHTS,
    "KV": MemoryTerm.CACHE,
    "RS": MemoryTerm.CACHE,
    "compute": MemoryTerm.COMPUTE,
    "output": MemoryTerm.COMPUTE,
}
_HOST = re.compile(r"CPU|BLAS|AMX|.*_Host$")
"""Places that are host memory; all others are devices (``CUDA0``, ``RPC0[10.0.0.2:50052]``)."""


def told_by_llama_cpp(lines: Iterable[str]) -> TermBytes:
    """The sizes of llama.cpp's buffers, by term, of all devices together.

    A buffer of one context that is reserved anew counts once, as large as it became.
    """
    found: dict[str, int] = {}
    reserved: dict[tuple[int, str, str], int] = {}
    context = 0
    for line in (one[:_LONGEST_LINE] for one in lines):
        if _CONTEXT.search(line):
            context += 1
            continue
        told = _BUFFER.search(line)
        size = None if told is None else _bytes(told["size"], _UNITS[told["unit"]])
        if told is None or size is None:
            continue
        side = MemorySide.HOST if _HOST.match(told["place"]) else MemorySide.DEVICES
        name = term_name(side, _KINDS[told["kind"]])
        if told["kind"] in ("compute", "output"):
            key = context, told["place"], told["kind"]
            before = reserved.get(key, 0)
            reserved[key] = max(before, size)
            found[name] = found.get(name, 0) + reserved[key] - before
        else:
            found[name] = found.get(name, 0) + size
            if told["kind"] == "model" and side is MemorySide.HOST:
                mapped = size if told["place"].endswith("_Mapped") else 0
                found[MAPPED] = found.get(MAPPED, 0) + mapped
    return found


_VLLM = (
    (MemoryTerm.WEIGHTS, re.compile(r"Model loading took (?P<size>\d+(?:\.\d+)?) ?GiB")),
    (MemoryTerm.CACHE, re.compile(r"Available KV cache memory: (?P<size>\d+(?:\.\d+)?) ?GiB")),
    (MemoryTerm.CACHE, re.compile(r"reserved (?P<size>\d+(?:\.\d+)?) ?GiB memory for KV Cache")),
    (MemoryTerm.COMPUTE, re.compile(r"PyTorch activation peak memory takes (?P<size>\d+(?:\.\d+)?) ?GiB")),
    (MemoryTerm.COMPUTE, re.compile(r"torch peak memory increase: (?P<size>\d+(?:\.\d+)?) ?GiB")),
    (MemoryTerm.GRAPHS, re.compile(r"Graph capturing finished in .*? took (?P<size>\d+(?:\.\d+)?) ?GiB")),
)
_SGLANG = (
    (MemoryTerm.WEIGHTS, re.compile(r"Load weight end\..*?\bmem usage=(?P<size>\d+(?:\.\d+)?) ?GB")),
    (MemoryTerm.CACHE, re.compile(r"KV Cache is allocated\..*?\bK size: (?P<size>\d+(?:\.\d+)?) ?GB")),
    (MemoryTerm.CACHE, re.compile(r"KV Cache is allocated\..*?\bV size: (?P<size>\d+(?:\.\d+)?) ?GB")),
    (MemoryTerm.CACHE, re.compile(r"KV Cache is allocated\..*?\bKV size: (?P<size>\d+(?:\.\d+)?) ?GB")),
    (MemoryTerm.CACHE, re.compile(r"Mamba Cache is allocated\..*?\bconv_state size: (?P<size>\d+(?:\.\d+)?) ?GB")),
    (MemoryTerm.CACHE, re.compile(r"Mamba Cache is allocated\..*?\bssm_state size: (?P<size>\d+(?:\.\d+)?) ?GB")),
    (MemoryTerm.GRAPHS, re.compile(r"Capture .*graph end\b.*?\bmem usage=(?P<size>\d+(?:\.\d+)?) ?GB", re.IGNORECASE)),
)  # fmt: skip

_Lines = tuple[tuple[MemoryTerm, re.Pattern[str]], ...]


def told_by_vllm(lines: Iterable[str], *, on_devices: bool) -> TermBytes:
    """What vLLM's processes say, summed: each writes of its own device. On a CPU it says nothing of use."""
    return _summed(lines, _VLLM) if on_devices else {}


def told_by_sglang(lines: Iterable[str], *, on_devices: bool) -> TermBytes:
    """What SGLang's processes say, summed."""
    return _summed(lines, _SGLANG) if on_devices else {}


def _summed(lines: Iterable[str], known: _Lines) -> TermBytes:
    found: dict[str, int] = {}
    for line in (one[:_LONGEST_LINE] for one in lines):
        for term, pattern in known:
            told = pattern.search(line)
            size = None if told is None else _bytes(told["size"], GIB)
            if size is not None:
                name = term_name(MemorySide.DEVICES, term)
                found[name] = found.get(name, 0) + size
    return found


def _bytes(number: str, unit: int) -> int | None:
    size = int(float(number) * unit) if len(number) < 20 else _LARGEST
    return size if size < _LARGEST else None
