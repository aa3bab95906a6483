"""A registry as far as a push and a pull go: blobs and manifests by digest, in memory."""

import hashlib
import re
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread
from typing import Any


@contextmanager
def registry() -> Iterator[tuple[str, dict[str, bytes]]]:
    """Host and port, and what was pushed: by digest, and manifests by their tags too."""
    stored: dict[str, bytes] = {}
    kinds: dict[str, str] = {}

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            data = stored.get(self.path.split("?")[0].rpartition("/")[2])
            if self.path == "/v2/":
                return self.answer(200)
            if data is None:
                return self.answer(404)
            return self.answer(200, data)

        do_HEAD = do_GET

        def do_POST(self) -> None:
            self.answer(202, Location=f"{self.path}1")

        def do_PUT(self) -> None:
            data = self.rfile.read(int(self.headers["Content-Length"]))
            digest = f"sha256:{hashlib.sha256(data).hexdigest()}"
            asked = re.findall("digest=(.+)", self.path.replace("%3A", ":"))
            name = asked[0] if asked else self.path.rpartition("/")[2]
            stored[digest] = stored[name] = data
            kinds[digest] = self.headers["Content-Type"]
            self.answer(201 if digest == name or not asked else 400, Location=self.path)

        def answer(self, code: int, data: bytes = b"", **headers: str) -> None:
            digest = f"sha256:{hashlib.sha256(data).hexdigest()}"
            kind = kinds.get(digest, "application/octet-stream")
            self.send_response(code)
            given = {"Content-Type": kind, **headers}
            if data:
                given["Docker-Content-Digest"] = digest
            for key, value in (given | {"Content-Length": str(len(data))}).items():
                self.send_header(key, value)
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(data)

        def log_message(self, *_: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
    try:
        yield f"127.0.0.1:{server.server_port}", stored
    finally:
        server.shutdown()
        server.server_close()
