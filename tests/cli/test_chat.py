"""What ``gpustack chat`` prints of the answers of engines."""

from __future__ import annotations

import io
import json
import threading
from http.server import BaseHTTPRequestHandler, HTTPServer

from gpustack.cli.chat import ChatSession
from gpustack.cli.session import ServerAddress, ServerSession
from gpustack.cli.terminal import Terminal


class Whole(BaseHTTPRequestHandler):
    """An engine that answers every request in one, also one that asks for a stream."""

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers["content-length"]))
        body = json.dumps({"choices": [{"message": {"role": "assistant", "content": "All of it."}}]}).encode()
        self.send_response(200)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:
        pass


def test_the_answer_of_an_engine_that_does_not_stream_is_printed() -> None:
    server = HTTPServer(("127.0.0.1", 0), Whole)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    out = io.StringIO()
    session = ServerSession(ServerAddress(url=f"http://127.0.0.1:{server.server_port}"))
    try:
        ChatSession(session=session, model="m", out=Terminal(out), aside=Terminal(io.StringIO())).once(
            "Hello"
        )
    finally:
        server.shutdown()
        server.server_close()
    assert out.getvalue() == "All of it.\n"
