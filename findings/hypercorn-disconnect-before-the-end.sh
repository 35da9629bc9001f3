#!/usr/bin/env bash
# hypercorn tells an application that its client has left while it still sends the end of its answer.
#
# Surprise:  receive() gives "http.disconnect" while the last send() of an answer is still under way, although the client is
#            there, reads, and gets the whole answer.
# Bites:     an application that waits for that message beside its answer, to stop its work when the client leaves: it takes
#            a finished request for an abandoned one (counts, logs), and what it cancels is the end of its own answer.
# Versions:  hypercorn 0.18.0 on trio 0.35.0; others were not tried.
# We:        take a disconnect for one only as long as the end of the answer has not begun: gpustack/launchers/service/call.py.
source "$(dirname "$0")/fresh.sh"
fresh 'hypercorn[trio]==0.18.0' trio==0.35.0 httpx==0.28.1
try <<'PYTHON'
import httpx
import report
import trio
from hypercorn.config import Config
from hypercorn.trio import serve

report.versions("hypercorn", "trio", "httpx")
told = []


async def app(scope, receive, send):
    if scope["type"] == "lifespan":
        for _ in range(2):
            step = (await receive())["type"]
            await send({"type": f"{step}.complete"})
        return
    while (await receive()).get("more_body"):
        pass
    sending = ""

    async def watch():
        message = await receive()
        told.append((message["type"], sending))

    async with trio.open_nursery() as nursery:
        nursery.start_soon(watch)
        await send({"type": "http.response.start", "status": 200, "headers": []})
        for number in range(3):
            sending = f"piece {number}"
            await send({"type": "http.response.body", "body": b"x" * 10, "more_body": True})
        await trio.sleep(0.1)
        sending = "the end"
        await send({"type": "http.response.body", "body": b"", "more_body": False})
        sending = "nothing any more"
        await trio.sleep(0.1)
        nursery.cancel_scope.cancel()


async def asked():
    config = Config()
    config.bind = ["127.0.0.1:0"]
    async with trio.open_nursery() as nursery:
        (address,) = await nursery.start(
            lambda task_status: serve(app, config, shutdown_trigger=trio.sleep_forever, task_status=task_status)
        )
        async with httpx.AsyncClient(timeout=5) as client:
            try:
                answer = await client.get(address)
                seen = f"{answer.status_code}, {len(answer.content)} bytes"
            except httpx.HTTPError as error:
                seen = type(error).__name__
        nursery.cancel_scope.cancel()
    return seen


whole = "200, 30 bytes"
seen = trio.run(asked)
report.observe("an application that only watches", expected=whole, recorded=whole, seen=seen)
report.observe(
    "what it is told, and what it was sending then",
    expected=[("http.disconnect", "nothing any more")],
    recorded=[("http.disconnect", "the end")],
    seen=told[:],
)
report.conclude()
PYTHON
