"""A Hugging Face Hub on localhost: the routes by which data sets are listed and read."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import unquote, urlsplit


@dataclass
class Hub:
    """One data set. commits: the files of each, by path; branches: the commits they are at."""

    repo: str
    commits: dict[str, dict[str, bytes]]
    branches: dict[str, str]
    url: str = ""
    asked: list[str] = field(default_factory=list)

    def at(self, revision: str) -> str | None:
        return revision if revision in self.commits else self.branches.get(revision)


@contextmanager
def serving(hub: Hub) -> Iterator[Hub]:
    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            path = unquote(urlsplit(self.path).path)
            hub.asked.append(f"{path} {self.headers.get('Range') or ''}".strip())
            api = f"/api/datasets/{hub.repo}"
            if path.startswith(f"{api}/tree/"):
                revision, _, folder = path.removeprefix(f"{api}/tree/").partition("/")
                self._tree(revision, folder, "recursive=true" in self.path.lower())
            elif path == api or path.startswith(f"{api}/revision/"):
                self._about(path.rpartition("/revision/")[2] if "/revision/" in path else "main")
            elif path.startswith(f"/datasets/{hub.repo}/resolve/"):
                revision, _, name = path.removeprefix(f"/datasets/{hub.repo}/resolve/").partition("/")
                self._file(revision, name)
            else:
                self._missing("RepoNotFound")

        def _about(self, revision: str) -> None:
            if not (commit := hub.at(revision)):
                return self._missing("RevisionNotFound")
            return self._json({"id": hub.repo, "_id": "1", "sha": commit, "private": False, "siblings": []})

        def _tree(self, revision: str, folder: str, deep: bool) -> None:
            files = hub.commits[hub.at(revision) or ""]
            below = {name: data for name, data in files.items() if name.startswith(folder and f"{folder}/")}
            if not below:
                return self._missing("EntryNotFound")
            found: dict[str, Any] = {}
            for name, data in below.items():
                parts = name.split("/")
                start = folder.count("/") + 1 if folder else 0
                for depth in range(start + 1, len(parts)):
                    path = "/".join(parts[:depth])
                    if deep or depth == start + 1:
                        found[path] = {"type": "directory", "oid": "0" * 40, "size": 0, "path": path}
                if deep or len(parts) == start + 1:
                    found[name] = {"type": "file", "oid": f"{hash(data)}", "size": len(data), "path": name}
            return self._json(list(found.values()))

        def _file(self, revision: str, name: str) -> None:
            data = hub.commits[hub.at(revision) or ""][name]
            first, last = 0, len(data) - 1
            if asked := self.headers.get("Range"):
                first, last = map(int, asked.removeprefix("bytes=").split("-"))
            self.send_response(206 if asked else 200)
            part = data[first : last + 1]
            self.send_header("Content-Length", str(len(part)))
            self.end_headers()
            self.wfile.write(part)

        def _json(self, value: Any) -> None:
            data = json.dumps(value).encode()
            self.send_response(200)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

        def _missing(self, code: str) -> None:
            self.send_response(404)
            self.send_header("X-Error-Code", code)
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, *_: object) -> None: ...

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    hub.url = f"http://127.0.0.1:{server.server_port}"
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield hub
    finally:
        server.shutdown()
        server.server_close()
