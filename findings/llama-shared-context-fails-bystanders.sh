#!/usr/bin/env bash
# Two requests that each fit llama.cpp's context fail together when their sum does not.
#
# Surprise:  with a unified KV cache (`--kv-unified`, and what llama-server takes when `--parallel` is not given) each
#            request may use the whole of `--ctx-size`, but all share it. When it is full no request waits and none is
#            cut: all that are under way end in a 500, "Context size has been exceeded", also the one that was there
#            first. Without it `--ctx-size` is divided by `--parallel`, and an answer that ends early says "length".
# Bites:     servers for several users with the default settings: a long request ends those of others, and clients take the
#            500 for a fault of the server and send all of them again.
# Versions:  xllamacpp 2026.10.11549 (llama.cpp b11549).
# We:        start llama.cpp with a context of its own for each request, so many times the memory as there are requests at
#            a time: gpustack/engines/llama_cpp.py, docs/llama-cpp.md.
source "$(dirname "$0")/fresh.sh"
fresh xllamacpp==2026.10.11549 gguf==0.19.0 numpy==2.4.6
try <<'PYTHON'
import json
from concurrent.futures import ThreadPoolExecutor

import report
from llama_server import ask, start

report.versions("xllamacpp", "gguf")


def complete(server, letter):
    """200 tokens that are asked, 200 that are answered."""
    body = {"prompt": letter * 200, "max_tokens": 200, "ignore_eos": True, "temperature": 0}
    status, text = ask(server, "/v1/completions", body)
    found = json.loads(text)
    if status == 200:
        return status, found["usage"]["total_tokens"], found["choices"][0]["finish_reason"]
    return status, found["error"]["message"]


def together(server):
    with ThreadPoolExecutor(2) as pool:
        return list(pool.map(complete, [server, server], "yz"))


whole, cut, failed = (200, 400, "length"), (200, 256, "length"), (500, "Context size has been exceeded.")
server = start(n_ctx=512, n_parallel=2, kv_unified=True, cache_ram_mib=0)
report.observe(
    "--ctx-size 512 --parallel 2 --kv-unified: a request of 400 tokens, alone",
    expected=whole,
    recorded=whole,
    seen=complete(server, "x"),
)
report.observe("two of them at a time", expected=[whole, whole], recorded=[failed, failed], seen=together(server))
del server
server = start(n_ctx=512)
report.observe(
    "two of them at a time, --ctx-size 512 alone (all else as llama-server has it by default)",
    expected=[whole, whole],
    recorded=[failed, failed],
    seen=together(server),
)
del server
server = start(n_ctx=512, n_parallel=2, kv_unified=False, cache_ram_mib=0)
report.observe(
    "the same without --kv-unified, alone: the context of 512 is divided by two",
    expected=whole,
    recorded=cut,
    seen=complete(server, "x"),
)
report.observe("two of them at a time", expected=[cut, cut], recorded=[cut, cut], seen=together(server))
del server
report.conclude()
PYTHON
