"""HTTP server for /healthz, /readyz and /metrics, on its own thread.

Kubernetes' gRPC probes do not support mutual TLS, and a scrape must not wait for the event loop.
"""

import logging
import socket
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread

from prometheus_client import CollectorRegistry
from prometheus_client.exposition import choose_encoder

from service.errors import StartError

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Probes:
    """Sources of what the endpoints report."""

    alive: Callable[[], bool]  # whether the event loop runs and no device is lost
    ready: Callable[[], bool]  # whether calls are served
    registry: CollectorRegistry


@contextmanager
def probe_server(host: str, port: int, probes: Probes) -> Iterator[int]:
    """Serves until the block ends; yields the bound port. Raises StartError."""
    handler = type("Handler", (_Handler,), {"probes": probes})
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    kind = type("Server", (_Server,), {"address_family": family})
    try:
        server = kind((host, port), handler)
    except OSError as error:
        raise StartError(f"metrics port {host}:{port} cannot be bound: {error.strerror}") from error
    server.daemon_threads = True
    thread = Thread(target=server.serve_forever, name="probes", daemon=True)
    thread.start()
    try:
        yield server.server_address[1]
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


class _Server(ThreadingHTTPServer):
    def handle_error(self, request: object, client_address: object) -> None:
        """Logs errors other than scrapers that hang up."""
        if not isinstance(sys.exc_info()[1], ConnectionError):
            _log.exception("an HTTP request failed")


class _Handler(BaseHTTPRequestHandler):
    probes: Probes

    def do_GET(self) -> None:
        path = self.path.split("?")[0]
        if path == "/metrics":
            encode, content_type = choose_encoder(self.headers.get("Accept", ""))
            self._answer(200, encode(self.probes.registry), content_type)
        elif path == "/healthz":
            self._answer_probe(
                self.probes.alive(), "alive", "the event loop hangs, or a device is lost"
            )
        elif path == "/readyz":
            self._answer_probe(
                self.probes.ready(), "ready", "loading, draining, or a device is lost"
            )
        else:
            self._answer(404, b"not found; there are /metrics, /healthz and /readyz\n")

    def log_message(self, format: str, *args: object) -> None:
        """Logs nothing, because probes come every few seconds."""

    def _answer_probe(self, good: bool, yes: str, no: str) -> None:
        self._answer(200 if good else 503, f"{yes if good else no}\n".encode())

    def _answer(self, status: int, body: bytes, content_type: str = "text/plain") -> None:
        self.send_response(status)
        self.send_header("Content-Type", content_type)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)
