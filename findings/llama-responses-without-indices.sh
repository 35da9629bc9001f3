#!/usr/bin/env bash
# The stock client's helper for streams of /v1/responses fails at the first word of llama.cpp.
#
# Surprise:  events of a Responses stream say where they belong (`output_index`, `content_index`). llama.cpp sends the events
#            in the right order, but without these members. The openai client checks nothing: `create(stream=True)` yields
#            them with None there, and its helper `responses.stream()`, which gathers the answer, uses the None as the index
#            of a list.
# Bites:     programs that use the helper, or place text by its indices: TypeError, after the request was served.
# Versions:  xllamacpp 2026.10.11549 (llama.cpp b11549), openai 3.54.0.
# We:        pass the events on as they are (gpustack/gateway/meter.py reads `usage` in them only), and test stock clients by
#            `create(stream=True)`: tests/e2e/test_other_apis.py.
source "$(dirname "$0")/fresh.sh"
fresh xllamacpp==2026.10.11549 gguf==0.19.0 numpy==2.4.6 openai==3.54.0
try <<'PYTHON'
import openai
import report
from llama_server import start

report.versions("xllamacpp", "gguf", "openai")
server = start(n_ctx=4096)
client = openai.OpenAI(base_url=f"{server.listening_address}/v1", api_key="none", max_retries=0, timeout=60)
asked = {"model": "tiny", "input": "hello", "max_output_tokens": 4, "temperature": 0}


def by_helper():
    kinds = []
    try:
        with client.responses.stream(**asked) as stream:
            kinds.extend(event.type for event in stream)
    except TypeError as error:
        return kinds[-1], f"TypeError: {error}"
    return kinds[-1], "no error"


plain = client.responses.create(**asked)
report.observe("a plain answer has a text", expected=True, recorded=True, seen=bool(plain.output_text))
with client.responses.create(**asked, stream=True) as stream:
    events = list(stream)
report.observe("create(stream=True): the last event", expected="response.completed", recorded="response.completed", seen=events[-1].type)
delta = next(event for event in events if event.type == "response.output_text.delta")
report.observe("the indices of its first delta", expected=(0, 0), recorded=(None, None), seen=(delta.output_index, delta.content_index))
report.observe(
    "responses.stream(): the last event that it yields, and how it ends",
    expected=("response.completed", "no error"),
    recorded=("response.content_part.added", "TypeError: list indices must be integers or slices, not NoneType"),
    seen=by_helper(),
)
del server
report.conclude()
PYTHON
