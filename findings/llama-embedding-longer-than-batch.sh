#!/usr/bin/env bash
# A text that fits the context of an embedding model is a 500 when it is longer than a batch, and clients retry it.
#
# Surprise:  llama.cpp splits prompts of chats into batches, but takes a text to be embedded only if it fits one (512
#            tokens by default, `--ubatch-size`), whatever `--ctx-size` says. The status for this is 500, not 400.
# Bites:     indexing of documents: nothing in /v1/models or /props says 512, short texts work, the first long paragraph
#            is a fault of the server. Stock clients send it twice more, and proxies take the server for a broken one.
# Versions:  xllamacpp 2026.10.11549 (llama.cpp b11549), openai 3.54.0.
# We:        answer with 400 and both numbers: gpustack/gateway/engine_error.py.
source "$(dirname "$0")/fresh.sh"
fresh xllamacpp==2026.10.11549 gguf==0.19.0 numpy==2.4.6 openai==3.54.0
try <<'PYTHON'
import json
import logging

import openai
import report
import xllamacpp
from llama_server import ask, start

report.versions("xllamacpp", "gguf", "openai")
server = start(
    n_ctx=4096, n_parallel=1, embedding=True, pooling_type=xllamacpp.llama_pooling_type.LLAMA_POOLING_TYPE_MEAN
)


def embed(length):
    """A letter is a token of this model."""
    status, text = ask(server, "/v1/embeddings", {"input": "x" * length})
    found = json.loads(text)
    return (status, found["usage"]["prompt_tokens"]) if status == 200 else (status, found["error"]["type"])


context = json.loads(ask(server, "/props")[1])["default_generation_settings"]["n_ctx"]
report.observe("tokens of context, as /props says", expected=4096, recorded=4096, seen=context)
report.observe("a text of 512 tokens", expected=(200, 512), recorded=(200, 512), seen=embed(512))
report.observe("a text of 513 tokens", expected=(200, 513), recorded=(500, "server_error"), seen=embed(513))
print(f"  it says:  {json.loads(ask(server, '/v1/embeddings', {'input': 'x' * 513})[1])['error']['message']}")
status, text = ask(server, "/v1/chat/completions", {"messages": [{"role": "user", "content": "x" * 513}], "max_tokens": 1})
report.observe(
    "the same text in a chat", expected=(200, 513), recorded=(200, 513), seen=(status, json.loads(text).get("usage", {}).get("prompt_tokens"))
)

retries = []


class Counter(logging.Handler):
    def emit(self, record):
        if record.getMessage().startswith("Retrying request"):
            retries.append(record)


logging.getLogger("openai").addHandler(Counter())
logging.getLogger("openai").setLevel(logging.INFO)
client = openai.OpenAI(base_url=f"{server.listening_address}/v1", api_key="none", timeout=60)
try:
    client.embeddings.create(model="tiny", input="x" * 513)
    raised = "nothing"
except openai.APIStatusError as error:
    raised = type(error).__name__
report.observe(
    "what the openai client raises, and how often it asks again before",
    expected=("nothing", 0),
    recorded=("InternalServerError", 2),
    seen=(raised, len(retries)),
)
del server
report.conclude()
PYTHON
