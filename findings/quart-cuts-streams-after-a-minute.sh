#!/usr/bin/env bash
# Quart ends a stream a minute after it began, while it sends, and logs nothing of it.
#
# Surprise:  RESPONSE_TIMEOUT (60 s by default) is not the longest silence of a response but the whole of its life. A stream
#            that sends an event each second stops in the middle: the generator is cancelled, no warning and no error is
#            logged, and the client sees a connection that ends within a chunked body.
# Bites:     server-sent events, watches, downloads: all is well in tests, which take less than a minute.
# Versions:  quart 0.22.0 with quart-trio 0.12.0 on hypercorn 0.18.0; others were not tried.
# We:        set RESPONSE_TIMEOUT to None: gpustack/api/app.py.
source "$(dirname "$0")/fresh.sh"
fresh quart==0.22.0 quart-trio==0.12.0 'hypercorn[trio]==0.18.0' httpx==0.28.1
try <<'PYTHON'
import logging

import httpx
import report
import trio
from hypercorn.config import Config
from hypercorn.trio import serve
from quart_trio import QuartTrio

report.versions("quart", "quart-trio", "hypercorn", "trio", "httpx")
EVENTS = 66
logged = []


class Keeper(logging.Handler):
    def emit(self, record):
        logged.append(f"{record.levelname}: {record.getMessage()}")


logging.getLogger().addHandler(Keeper(logging.WARNING))
for name in ("quart", "hypercorn.error", "hypercorn.access", "quart_app"):
    logging.getLogger(name).addHandler(Keeper(logging.WARNING))


def application(limit):
    app = QuartTrio("quart_app")
    if limit != "default":
        app.config["RESPONSE_TIMEOUT"] = limit

    @app.get("/")
    async def stream():
        async def numbers():
            for number in range(EVENTS):
                yield f"data: {number}\n\n"
                await trio.sleep(1)

        return numbers(), {"Content-Type": "text/event-stream"}

    return app


async def received(limit, results):
    config = Config()
    config.bind = ["127.0.0.1:0"]
    config.errorlog = logging.getLogger("hypercorn.error")
    config.accesslog = logging.getLogger("hypercorn.access")
    events, end = 0, "as it should"
    async with trio.open_nursery() as nursery:
        (address,) = await nursery.start(
            lambda task_status: serve(application(limit), config, shutdown_trigger=trio.sleep_forever, task_status=task_status)
        )
        async with httpx.AsyncClient(timeout=30) as client:
            try:
                async with client.stream("GET", address) as response:
                    async for line in response.aiter_lines():
                        events += line.startswith("data:")
            except httpx.RemoteProtocolError as error:
                end = f"{error}"
        nursery.cancel_scope.cancel()
    results[limit] = events, end


async def main():
    results = {}
    async with trio.open_nursery() as nursery:
        for limit in (None, "default"):
            nursery.start_soon(received, limit, results)
    return results


def many(result):
    """A slow machine sends a few less in a minute."""
    events, end = result
    return "all events" if events == EVENTS else "fewer" if events else "none", end


print(f"\na stream of {EVENTS} events, one a second", flush=True)
results = trio.run(main)
print(f"events that came: {results[None][0]} without RESPONSE_TIMEOUT, {results['default'][0]} with the default")
well = ("all events", "as it should")
report.observe("RESPONSE_TIMEOUT = None", expected=well, recorded=well, seen=many(results[None]))
report.observe(
    "RESPONSE_TIMEOUT as it is by default",
    expected=well,
    recorded=("fewer", "peer closed connection without sending complete message body (incomplete chunked read)"),
    seen=many(results["default"]),
)
report.observe("warnings and errors that were logged", expected="one at least", recorded=[], seen=logged)
report.conclude()
PYTHON
