"""A slow web server with one file, which counts how often it is asked for it."""

from __future__ import annotations

import threading
import time
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import Self

PIECE = 64 << 10


class ModelServer:
    """content: the file. cut: bytes that are kept back from each download. seconds: what a download takes."""

    def __init__(self, content: bytes, seconds: float = 0.5, cut: int = 0) -> None:
        self.gets = 0
        self._content, self._seconds, self._cut = content, seconds, cut
        self._lock = threading.Lock()
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), self._handler())
        self.url = f"http://127.0.0.1:{self._server.server_port}/model.gguf"

    def __enter__(self) -> Self:
        threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True).start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._server.shutdown()
        self._server.server_close()

    def _handler(self) -> type[BaseHTTPRequestHandler]:
        server = self

        class Handler(BaseHTTPRequestHandler):
            def do_HEAD(self) -> None:
                self.send_response(200)
                self.send_header("Content-Length", str(len(server._content)))
                self.send_header("ETag", '"1"')
                self.end_headers()

            def do_GET(self) -> None:
                with server._lock:
                    server.gets += 1
                self.do_HEAD()
                body = server._content[: len(server._content) - server._cut]
                pieces = range(0, len(body), PIECE)
                # Whoever asked may be killed meanwhile.
                with suppress(BrokenPipeError, ConnectionResetError):
                    for start in pieces:
                        self.wfile.write(body[start : start + PIECE])
                        time.sleep(server._seconds / len(pieces))
                self.close_connection = True

            def log_message(self, format: str, *args: object) -> None: ...

        return Handler
