#!/usr/bin/env bash
# llama.cpp makes several answers to one request, and tells in `usage` the tokens of one of them.
#
# Surprise:  OpenAI's API counts all choices in `usage`. llama.cpp's answer to a chat with `n: 4` holds four choices, and the
#            `completion_tokens` of one; that to a list of prompts counts one prompt and one answer. Streams send
#            one event of usage for each choice, so that who takes the last one is wrong, too.
# Bites:     whoever bills, limits or measures by `usage`: a budget can be passed by as many times as there are choices.
# Versions:  xllamacpp 2026.10.11549 (llama.cpp b11549).
# We:        sum the events of a stream, and of a plain answer count the other choices by what can be seen of them, else
#            by what was reserved for them: gpustack/gateway/meter.py, gpustack/gateway/choices.py.
source "$(dirname "$0")/fresh.sh"
fresh xllamacpp==2026.10.11549 gguf==0.19.0 numpy==2.4.6
try <<'PYTHON'
import json

import report
from llama_server import ask, events, start

report.versions("xllamacpp", "gguf")
server = start(n_ctx=4096, n_parallel=4)
TEN = {"max_tokens": 10, "ignore_eos": True, "temperature": 0}
CHAT = {"messages": [{"role": "user", "content": "hello"}], **TEN}


def answer(path, body):
    status, text = ask(server, path, body)
    assert status == 200, text
    return json.loads(text)


def told(found):
    return {"choices": len(found["choices"]), **{f"{name}_tokens": found["usage"][f"{name}_tokens"] for name in ("prompt", "completion")}}


report.observe(
    "a chat of 5 tokens, 10 tokens an answer, n: 1",
    expected={"choices": 1, "prompt_tokens": 5, "completion_tokens": 10},
    recorded={"choices": 1, "prompt_tokens": 5, "completion_tokens": 10},
    seen=told(answer("/v1/chat/completions", CHAT)),
)
several = answer("/v1/chat/completions", {**CHAT, "n": 4, "logprobs": True})
report.observe(
    "the same with n: 4",
    expected={"choices": 4, "prompt_tokens": 5, "completion_tokens": 40},
    recorded={"choices": 4, "prompt_tokens": 5, "completion_tokens": 10},
    seen=told(several),
)
report.observe(
    "tokens whose logprobs stand in each of the four choices",
    expected=[10, 10, 10, 10],
    recorded=[10, 10, 10, 10],
    seen=[len(choice["logprobs"]["content"]) for choice in several["choices"]],
)
report.observe(
    "a completion of three prompts of 3, 4 and 5 tokens, 10 tokens an answer",
    expected={"choices": 3, "prompt_tokens": 12, "completion_tokens": 30},
    recorded={"choices": 3, "prompt_tokens": 3, "completion_tokens": 10},
    seen=told(answer("/v1/completions", {"prompt": ["abc", "abcd", "abcde"], **TEN})),
)
status, text = ask(server, "/v1/chat/completions", {**CHAT, "n": 4, "stream": True, "stream_options": {"include_usage": True}})
report.observe(
    "completion_tokens in the events of usage of a stream with n: 4",
    expected=[40],
    recorded=[10, 10, 10, 10],
    seen=[event["usage"]["completion_tokens"] for event in events(text) if event.get("usage")],
)
del server
report.conclude()
PYTHON
