"""The plain way to write this gateway: Quart, httpx, and nothing else. What ours is compared with.

python benchmarks/plain.py PORT ENGINE_PORT API_KEY
"""

from __future__ import annotations

import hashlib
import json
import sys
from collections.abc import AsyncIterator
from typing import Any

import httpx
import hypercorn.trio
import trio
from hypercorn.config import Config
from quart import request
from quart_trio import QuartTrio

port, engine, key = int(sys.argv[1]), int(sys.argv[2]), sys.argv[3]
app = QuartTrio(__name__)
app.config["RESPONSE_TIMEOUT"] = None
client = httpx.AsyncClient(timeout=httpx.Timeout(1800, connect=5), limits=httpx.Limits(max_connections=1000))
keys = {hashlib.sha256(key.encode()).digest(): "ada"}
tokens: dict[str, int] = {}


def count(user: str, tail: bytes) -> None:
    at = tail.rfind(b'"usage":{')
    if at >= 0:
        used, _ = json.JSONDecoder().raw_decode(tail[at + 8 :].decode())
        tokens[user] = tokens.get(user, 0) + used["total_tokens"]


@app.post("/v1/chat/completions")
async def chat() -> Any:
    bearer = request.headers.get("authorization", "").removeprefix("Bearer ")
    user = keys.get(hashlib.sha256(bearer.encode()).digest())
    if user is None:
        return {"error": {"message": "Unauthorized"}}, 401
    body = await request.get_data()
    stream = json.loads(body).get("stream")
    url = f"http://127.0.0.1:{engine}/v1/chat/completions"
    asked = client.build_request("POST", url, content=body, headers={"content-type": "application/json"})
    answer = await client.send(asked, stream=bool(stream))
    headers = {"content-type": answer.headers["content-type"]}
    if not stream:
        count(user, answer.content)
        return answer.content, answer.status_code, headers

    async def relay() -> AsyncIterator[bytes]:
        try:
            async for data in answer.aiter_raw():
                count(user, data)
                yield data
        finally:
            with trio.CancelScope(shield=True):
                await answer.aclose()

    return relay(), answer.status_code, headers


config = Config()
config.bind = [f"127.0.0.1:{port}"]
trio.run(hypercorn.trio.serve, app, config)
