#!/usr/bin/env bash
# llama.cpp begins the stream for a list of prompts with an event that says `null`, which stock clients hand on as None.
#
# Surprise:  `POST /v1/completions` with `stream: true` and one prompt is a stream of completions. With a list of prompts its
#            first event is `data: null`. The openai client yields None for it, though the stream is typed as one of
#            Completion.
# Bites:     every loop `for chunk in stream: chunk.choices…`: AttributeError at the first event.
# Versions:  xllamacpp 2026.10.11549 (llama.cpp b11549), openai 3.54.0.
# We:        leave the event out: gpustack/gateway/sse.py.
source "$(dirname "$0")/fresh.sh"
fresh xllamacpp==2026.10.11549 gguf==0.19.0 numpy==2.4.6 openai==3.54.0
try <<'PYTHON'
import openai
import report
from llama_server import ask, events, start

report.versions("xllamacpp", "gguf", "openai")
server = start(n_ctx=4096, n_parallel=4)
client = openai.OpenAI(base_url=f"{server.listening_address}/v1", api_key="none", max_retries=0, timeout=60)


def first_event(prompt):
    body = {"prompt": prompt, "max_tokens": 4, "temperature": 0, "stream": True}
    found = events(ask(server, "/v1/completions", body)[1])[0]
    return type(found).__name__


def texts(prompt):
    try:
        with client.completions.create(model="tiny", prompt=prompt, max_tokens=4, temperature=0, stream=True) as stream:
            return sorted({chunk.choices[0].index for chunk in stream})
    except AttributeError as error:
        return f"AttributeError: {error}"


report.observe("the first event for one prompt", expected="dict", recorded="dict", seen=first_event("abc"))
report.observe("for a list of two", expected="dict", recorded="NoneType", seen=first_event(["abc", "xyz"]))
report.observe("the openai client reads the stream for one prompt: indices of its choices", expected=[0], recorded=[0], seen=texts("abc"))
report.observe(
    "for a list of two",
    expected=[0, 1],
    recorded="AttributeError: 'NoneType' object has no attribute 'choices'",
    seen=texts(["abc", "xyz"]),
)
del server
report.conclude()
PYTHON
