#!/usr/bin/env bash
# httpx takes a network in NO_PROXY for the one address that it is written with, and an IPv6 address in brackets for a fault.
#
# Surprise:  NO_PROXY=127.0.0.0/8 frees 127.0.0.0 alone from the proxy, 127.0.0.1/8 frees 127.0.0.1 alone: what stands after
#            the slash is read, and not used. requests frees the network. NO_PROXY=[::1] makes every request fail with
#            InvalidURL, to whatever host, where requests goes on.
# Bites:     machines whose shells say NO_PROXY=10.0.0.0/8: requests to neighbours go to the proxy, with their headers, while
#            other tools on the same machine go directly.
# Versions:  httpx 0.28.1, requests 2.34.2.
# We:        work the routes out ourselves: gpustack/config/proxy.py, gpustack/remote/proxy_transport.py.
source "$(dirname "$0")/fresh.sh"
fresh httpx==0.28.1 requests==2.34.2
try <<'PYTHON'
import os
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import httpx
import report
import requests

report.versions("httpx", "requests")


def serve(name):
    class Handler(BaseHTTPRequestHandler):
        def do_GET(self):
            self.send_response(200)
            self.send_header("Content-Length", str(len(name)))
            self.end_headers()
            self.wfile.write(name.encode())

        def log_message(self, *_):
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    return server.server_port


target = f"http://127.0.0.1:{serve('direct')}/"
os.environ["http_proxy"] = f"http://127.0.0.1:{serve('proxy')}"


def asked_with(library, exempt):
    os.environ["no_proxy"] = exempt
    try:
        return library.get(target, timeout=10).text
    except httpx.InvalidURL as error:
        return f"InvalidURL: {error}"


for exempt, expected, by_httpx in (
    ("192.0.2.7", "proxy", "proxy"),
    ("127.0.0.1", "direct", "direct"),
    ("127.0.0.0/8", "direct", "proxy"),
    ("127.0.0.1/8", "direct", "direct"),
    ("127.0.0.2/8", "direct", "proxy"),
    ("[::1]", "proxy", "InvalidURL: Invalid port: ':1]'"),
):
    report.observe(
        f"NO_PROXY={exempt}, a request to 127.0.0.1, by requests", expected=expected, recorded=expected, seen=asked_with(requests, exempt)
    )
    report.observe("by httpx", expected=expected, recorded=by_httpx, seen=asked_with(httpx, exempt))
report.conclude()
PYTHON
