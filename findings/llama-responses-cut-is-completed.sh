#!/usr/bin/env bash
# llama.cpp says of an answer to /v1/responses that it is complete when it has been cut off.
#
# Surprise:  a chat that ends at its limit says so (`finish_reason: length`), a message of /v1/messages too
#            (`stop_reason: max_tokens`). In OpenAI's Responses API that is `status: incomplete` with `incomplete_details`,
#            and the event `response.incomplete` at the end of a stream. llama.cpp says `completed` in all of these places,
#            at the limit that was asked for and at the end of the context alike, and has no `incomplete_details`.
# Bites:     agents that go on with a cut answer as with a whole one; retries with a higher limit that never come.
# Versions:  xllamacpp 2026.10.11549 (llama.cpp b11549).
# We:        pass on what the engine says, and take the usage from either event (gpustack/gateway/sse_usage.py): whoever
#            must know asks by /v1/chat/completions.
source "$(dirname "$0")/fresh.sh"
fresh xllamacpp==2026.10.11549 gguf==0.19.0 numpy==2.4.6
try <<'PYTHON'
import json

import report
from llama_server import ask, events, start

report.versions("xllamacpp", "gguf")
server = start(n_ctx=256, n_parallel=1)
HELLO = [{"role": "user", "content": "hello"}]
GREEDY = {"model": "tiny", "temperature": 0}


def answer(path, body):
    status, text = ask(server, path, {**GREEDY, **body})
    assert status == 200, text
    return json.loads(text)


chat = answer("/v1/chat/completions", {"messages": HELLO, "max_tokens": 4})
reason = chat["choices"][0]["finish_reason"]
report.observe("a chat cut after 4 tokens: finish_reason", expected="length", recorded="length", seen=reason)
message = answer("/v1/messages", {"messages": HELLO, "max_tokens": 4})
reason = message["stop_reason"]
report.observe("a message cut after 4 tokens: stop_reason", expected="max_tokens", recorded="max_tokens", seen=reason)

CUT = {"status": "incomplete", "item": "incomplete", "reason": "max_output_tokens"}


def told(response):
    details = response.get("incomplete_details") or {}
    return {"status": response["status"], "item": response["output"][-1]["status"], "reason": details.get("reason")}


response = answer("/v1/responses", {"input": "hello", "max_output_tokens": 4})
report.observe("a response cut after 4 tokens: tokens", expected=4, recorded=4, seen=response["usage"]["output_tokens"])
SILENT = {"status": "completed", "item": "completed", "reason": None}
report.observe("what it says of its end", expected=CUT, recorded=SILENT, seen=told(response))
full = answer("/v1/responses", {"input": "hello", "ignore_eos": True})
report.observe("a response that filled the context: tokens in all", expected=256, recorded=256, seen=full["usage"]["total_tokens"])
report.observe("what it says of its end", expected=CUT, recorded=SILENT, seen=told(full))
status, text = ask(server, "/v1/responses", {**GREEDY, "input": "hello", "max_output_tokens": 4, "stream": True})
report.observe(
    "the last event of a stream that was cut",
    expected="response.incomplete",
    recorded="response.completed",
    seen=events(text)[-1]["type"],
)
del server
report.conclude()
PYTHON
