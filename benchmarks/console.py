"""What the web console costs a browser: its size, how soon it shows something and can be used, scrolling through a
large cluster, its memory, and how soon a change of the server is on the screen.

    python benchmarks/console.py [--workers 1000] [--instances 5000] [--json]

A real server (``console_world.py``) and headless Chromium, slowed down four times. With ``--json`` one object a line.
A page without a script or a style, from another server, says what part of a first paint is the browser's own.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import TYPE_CHECKING, Any

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent))

from benchmarks.console_world import PASSWORD, large_cluster  # noqa: E402
from benchmarks.figure import Figure  # noqa: E402
from benchmarks.measure import pss  # noqa: E402
from benchmarks.scale import Fake  # noqa: E402
from tests.daemon import Daemon  # noqa: E402
from tests.needs import requires  # noqa: E402

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

BUILT = HERE.parent / "gpustack" / "api" / "static" / "console"
SLOWER = 4
"""Times, as Chromium slows the processor of a page down."""
LOADS = 7
CHANGES = 15
_AT_REST = 1.0
"""Seconds after which a new tab has nothing more to do, and between looks at a page that loads."""
_TRIES = 60
_BARE = b"<!doctype html><title>Bare</title><main><h1>Hello</h1></main>"
_WATCH = """
(() => {
  const seen = { longest: 0, tasks: 0 };
  window.measured = seen;
  new PerformanceObserver((list) => {
    for (const one of list.getEntries()) { seen.longest = Math.max(seen.longest, one.duration); seen.tasks += 1; }
  }).observe({ type: 'longtask', buffered: true });
  // When it is on the screen, not when it is in the document.
  const painted = (name) => requestAnimationFrame(() => setTimeout(() => { seen[name] = performance.now(); }));
  const waited = { usable: 'main h1', rows: 'main .worker' };
  const look = () => {
    for (const name in waited) {
      if (!document.querySelector(waited[name])) continue;
      delete waited[name];
      painted(name);
    }
  };
  new MutationObserver(look).observe(document, { childList: true, subtree: true });
})();
"""
_SCROLL = """
async () => {
  window.measured.longest = 0; window.measured.tasks = 0;
  let rows = 0;
  const count = (all) => { for (const one of all) rows += one.addedNodes.length; };
  new MutationObserver(count).observe(document.querySelector('.virtual'), { childList: true });
  const end = document.documentElement.scrollHeight - innerHeight;
  const began = performance.now();
  let frames = 0;
  for (let y = 0; y < end; y += end / 240) {
    scrollTo(0, y);
    await new Promise(requestAnimationFrame);
    frames += 1;
  }
  for (let jump = 0; jump < 40; jump += 1) {
    scrollTo(0, (end * ((jump * 7919) % 40)) / 40);
    await new Promise(requestAnimationFrame);
    frames += 1;
  }
  await new Promise((done) => setTimeout(done, 300));
  const frame = (performance.now() - began - 300) / frames;
  return { longest: window.measured.longest, tasks: window.measured.tasks, frame, rows };
}
"""
_CHANGED = """
([name, text]) => new Promise((done) => {
  const look = () => {
    const all = [...document.querySelectorAll('.worker .who')];
    const row = all.find((one) => one.querySelector('a').textContent === name);
    if (!row?.textContent.includes(text)) return;
    observer.disconnect();
    requestAnimationFrame(() => done(Date.now()));
  };
  const observer = new MutationObserver(look);
  observer.observe(document, { childList: true, subtree: true, characterData: true });
  look();
})
"""


def main() -> None:
    parser = argparse.ArgumentParser(prog="benchmarks/console.py", description=__doc__)
    parser.add_argument("--workers", type=int, default=1000)
    parser.add_argument("--instances", type=int, default=5000)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    if not (BUILT / "index.html").is_file():
        parser.error("the console is not built: make docs-ui")
    Figure("size, gzipped", weight() / 1000, 150.0, "kB").show(as_json=options.json)
    with browser() as chromium:
        with bare_page() as url:
            paints = [_loaded(chromium, None, url)[0] for _ in range(LOADS)]
        Figure("first paint, a page of one word", statistics.median(paints), None, "ms").show(
            as_json=options.json
        )
        for name, few in (("an empty cluster", 0), (f"{options.workers} workers", options.workers)):
            with large_cluster(few, options.instances if few else 0) as (server, fleet):
                for figure in _measured(chromium, server, fleet, name):
                    figure.show(as_json=options.json)


def weight() -> int:
    """Bytes of all that a browser is given, gzipped."""
    return sum(path.stat().st_size for path in BUILT.rglob("*.gz"))


@contextmanager
def browser() -> Iterator[Browser]:
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        chromium = playwright.chromium.launch(executable_path=requires("chromium"), args=["--no-sandbox"])
        yield chromium
        chromium.close()


@contextmanager
def bare_page() -> Iterator[str]:
    """The address of a page of one word."""

    class Bare(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.send_header("Content-Type", "text/html")
            self.send_header("Content-Length", str(len(_BARE)))
            self.end_headers()
            self.wfile.write(_BARE)

        def log_message(self, format: str, *args: object) -> None:
            """Nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Bare)
    Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}/"
    server.shutdown()
    server.server_close()


@contextmanager
def visitor(chromium: Browser, server: Daemon | None) -> Iterator[Page]:
    """Somebody who has signed in, at a slow machine, with an empty cache."""
    context = chromium.new_context(viewport={"width": 1440, "height": 900})
    if server is not None:
        answer = context.request.post(
            f"{server.url}/auth/login", data={"username": "admin", "password": PASSWORD}
        )
        assert answer.ok, answer.text()
    page = context.new_page()
    page.add_init_script(_WATCH)
    context.new_cdp_session(page).send("Emulation.setCPUThrottlingRate", {"rate": SLOWER})
    yield page
    context.close()


def _measured(chromium: Browser, server: Daemon, fleet: list[Fake], name: str) -> Iterator[Figure]:
    paints, usable = zip(*(_loaded(chromium, server, f"{server.url}/") for _ in range(LOADS)), strict=True)
    yield Figure(f"first paint, {name}", statistics.median(paints), 300.0, "ms")
    yield Figure(f"usable, {name}", statistics.median(usable), 600.0, "ms")
    if not fleet:
        return
    with visitor(chromium, server) as page:
        rows = _shown(page, f"{server.url}/cluster", "rows")
        yield Figure(f"workers on the screen, {name}", rows, None, "ms")
        page.wait_for_timeout(3000)
        yield Figure(
            f"longest task while loading, {name}", page.evaluate("window.measured.longest"), None, "ms"
        )
        scrolled = page.evaluate(_SCROLL)
        yield Figure(f"longest task while scrolling, {name}", scrolled["longest"], 50.0, "ms")
        yield Figure(f"a frame while scrolling, {name}", scrolled["frame"], None, "ms")
        # Fewer than there are workers: somebody who scrolls as fast sees gaps for a moment.
        yield Figure(f"rows drawn while scrolling, {name}", scrolled["rows"], None, "rows", "higher")
        waits = [_change(page, server, number) for number in range(CHANGES)]
        yield Figure(f"a change on the screen, {name}, median", statistics.median(waits), 300.0, "ms")
        yield Figure(f"a change on the screen, {name}, longest", max(waits), None, "ms")
        yield Figure(f"memory of the page: JavaScript, {name}", _heap(page) / 1e6, 150.0, "MB")
        yield Figure(f"memory of the page: its process, {name}", _process(chromium) / 1e6, None, "MB (PSS)")


def _loaded(chromium: Browser, server: Daemon | None, url: str) -> tuple[float, float]:
    """Milliseconds from the beginning of the navigation to the first paint, and until the heading is on the screen."""
    with visitor(chromium, server) as page:
        usable = _shown(page, url, "usable")
        paint = page.evaluate("performance.getEntriesByName('first-contentful-paint')[0].startTime")
        return paint, usable


def _shown(page: Page, url: str, what: str) -> float:
    """Go there in a browser at rest; when that is on the screen, in milliseconds from the beginning.

    Asked of the browser itself: Playwright's own ways put a script into the page that takes a slow machine 150 ms.
    """
    session: Any = page.context.new_cdp_session(page)
    time.sleep(_AT_REST)
    session.send("Page.navigate", {"url": url})
    for _ in range(_TRIES):
        time.sleep(_AT_REST)
        found = session.send("Runtime.evaluate", {"expression": f"window.measured?.{what}"})["result"]
        if "value" in found:
            return float(found["value"])
    raise AssertionError(f"{url} does not become {what}")


def _change(page: Page, server: Daemon, number: int) -> float:
    """Milliseconds from asking the server for a change to its being on the screen."""
    name = "n1"
    listed = server.call("GET", f"/v1/workers?name={name}")[1]["items"]
    cordoned = not listed[0]["cordoned"]
    # A search brings it among the first rows either way.
    if number == 0:
        page.goto(f"{server.url}/cluster?q={name}%20")
        page.wait_for_selector(".worker")
        page.wait_for_timeout(1500)
    until = page.evaluate_handle(
        f"({{ found: ({_CHANGED})({[name, 'cordoned' if cordoned else '127.0.0.1']!r}) }})"
    )
    began = time.time()
    assert server.call("PUT", f"/v1/workers/{listed[0]['id']}", {"cordoned": cordoned})[0] == 200
    at = page.evaluate("async (waiting) => await waiting.found", until)
    page.wait_for_timeout(100)
    return float(at) - began * 1000


def _heap(page: Page) -> float:
    session: Any = page.context.new_cdp_session(page)
    session.send("HeapProfiler.collectGarbage")
    session.send("Performance.enable")
    found = {one["name"]: one["value"] for one in session.send("Performance.getMetrics")["metrics"]}
    return float(found["JSHeapUsedSize"])


def _process(chromium: Browser) -> float:
    """Of the largest process of Chromium that draws pages."""
    session: Any = chromium.new_browser_cdp_session()
    processes = session.send("SystemInfo.getProcessInfo")["processInfo"]
    return max(float(pss(one["id"])) for one in processes if one["type"] == "renderer")


if __name__ == "__main__":
    main()
