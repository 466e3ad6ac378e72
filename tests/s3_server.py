"""A real S3 server in this process, which can be told to fail."""

from __future__ import annotations

import io
import logging
import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from enum import Enum
from typing import Any

from moto.moto_server.werkzeug_app import (
    DomainDispatcherApplication,
    MotoRequestHandler,
    create_backend_app,
)
from werkzeug.serving import make_server

# What moto says of every upload in parts.
_MOTO_INITIATED = b"2010-11-10T20:48:33.000Z"


class Fault(Enum):
    REFUSED = "nothing is done, and the answer is 503"
    LOST = "it is done, and the answer is 503"
    SHORT = "it is done, and the answer is cut off in its middle"


@dataclass(frozen=True)
class Request:
    method: str
    path: str
    query: str
    if_none_match: str


@dataclass
class S3Server:
    """fail() makes requests fail, and `every`, if it isn't 0, each so many-th one, in turn in each way.

    requests: all that came. initiated: when uploads in parts began. on_request is called when a request's
    head has come, and before its body is read.
    """

    url: str = ""
    initiated: str = "2010-11-10T20:48:33.000Z"
    requests: list[Request] = field(default_factory=list)
    every: int = 0
    on_request: Callable[[Request], None] = lambda request: None
    _faults: list[tuple[Fault, str, str, str]] = field(default_factory=list)
    _lock: threading.Lock = field(default_factory=threading.Lock)
    _app: Any = field(default_factory=lambda: DomainDispatcherApplication(create_backend_app))

    @contextmanager
    def running(self) -> Iterator[S3Server]:
        logging.getLogger("werkzeug").setLevel(logging.ERROR)
        server = make_server("127.0.0.1", 0, self, threaded=True, request_handler=MotoRequestHandler)
        self.url = f"http://127.0.0.1:{server.server_port}"
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        yield self
        server.shutdown()
        thread.join()

    @property
    def environment(self) -> dict[str, str]:
        """All that a client needs. The client itself tries nothing again, so that tests are quick."""
        return {
            "AWS_ENDPOINT_URL": self.url,
            "AWS_ACCESS_KEY_ID": "test",
            "AWS_SECRET_ACCESS_KEY": "test",
            "AWS_DEFAULT_REGION": "us-east-1",
            "AWS_EC2_METADATA_DISABLED": "true",
            "AWS_CONFIG_FILE": "/nonexistent",
            "AWS_SHARED_CREDENTIALS_FILE": "/nonexistent",
            "AWS_MAX_ATTEMPTS": "1",
        }

    def fail(self, fault: Fault, method: str, path: str, times: int = 1, query: str = "") -> None:
        """The next `times` requests whose path ends so, and whose query begins so, have the fault."""
        self._faults += [(fault, method, path, query)] * times

    def heal(self) -> None:
        self._faults.clear()
        self.every = 0
        self.on_request = lambda request: None

    def __call__(self, environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
        request = Request(
            environ["REQUEST_METHOD"],
            environ["PATH_INFO"],
            environ["QUERY_STRING"],
            environ.get("HTTP_IF_NONE_MATCH", ""),
        )
        self.on_request(request)
        body = _body(environ)
        # S3 refuses a body that is shorter than announced; moto would keep it.
        if body is None:
            return _refuse(start_response, "400 Bad Request", "IncompleteBody")
        environ["wsgi.input"] = io.BytesIO(body)
        # S3 decides between two writers in one step, where moto tests and then writes.
        with self._lock:
            self.requests.append(request)
            fault = self._next_fault(request)
            if fault is Fault.REFUSED:
                return _refuse(start_response, "503 Service Unavailable", "ServiceUnavailable")
            if fault is Fault.LOST:
                list(self._app(environ, lambda *_: None))
                return _refuse(start_response, "503 Service Unavailable", "ServiceUnavailable")
            answer = b"".join(self._app(environ, start_response))
        if fault is Fault.SHORT:
            answer = answer[: len(answer) // 2]
        if b"<ListMultipartUploadsResult" in answer:
            answer = answer.replace(_MOTO_INITIATED, self.initiated.encode())
        return [answer]

    def _next_fault(self, request: Request) -> Fault | None:
        for number, (fault, method, path, query) in enumerate(self._faults):
            fits = request.path.endswith(path) and request.query.startswith(query)
            if request.method == method and fits:
                del self._faults[number]
                return fault
        if self.every and len(self.requests) % self.every == 0:
            return [*Fault][len(self.requests) // self.every % len(Fault)]
        return None


def _body(environ: dict[str, Any]) -> bytes | None:
    """The request's body; None where the client went away in its middle."""
    length = int(environ.get("CONTENT_LENGTH") or 0)
    try:
        body = environ["wsgi.input"].read(length)
    except OSError:
        return None
    return body if len(body) == length else None


def _refuse(start_response: Callable[..., Any], status: str, code: str) -> list[bytes]:
    body = f"<Error><Code>{code}</Code><Message>{status}</Message></Error>".encode()
    start_response(status, [("Content-Type", "text/xml"), ("Content-Length", str(len(body)))])
    return [body]
