"""HTTP server for /healthz, /readyz and /metrics, on its own thread and event loop.

Kubernetes' gRPC probes do not support mutual TLS, and a scrape must not wait for the event loop of
the calls. The port needs no token, so what a caller can hold is bounded: one request for each
connection, TIMEOUT_S for all of it, and MAX_CONNECTIONS at a time. Beyond those, the address with
the most connections loses its oldest one, so that silent callers cannot keep a probe out.
"""

import asyncio
import logging
import socket
from collections import Counter
from collections.abc import Callable, Coroutine, Iterator
from contextlib import AsyncExitStack, contextmanager
from dataclasses import dataclass
from http import HTTPStatus
from threading import Thread
from typing import Any

from prometheus_client import CollectorRegistry
from prometheus_client.exposition import choose_encoder

from service.listening import listening_sockets

TIMEOUT_S = 10.0  # from a connection's begin to the last byte of its answer
MAX_CONNECTIONS = 64  # Prometheus and the probes of one pod open about four
MAX_HEAD_BYTES = 16 << 10  # of a request's first line and headers
_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Probes:
    """Sources of what the endpoints report."""

    alive: Callable[[], bool]  # whether the event loop runs and no device is lost
    ready: Callable[[], bool]  # whether calls are served
    registry: CollectorRegistry


@contextmanager
def probe_server(
    host: str, port: int, probes: Probes, timeout_s: float = TIMEOUT_S
) -> Iterator[int]:
    """Serves until the block ends, at every address of the host; yields the bound port. Raises
    StartError."""
    listening = listening_sockets(f"--metrics-port {port}", host, port)
    bound_port: int = listening[0].getsockname()[1]
    loop, stop = asyncio.new_event_loop(), asyncio.Event()
    work = _serve(listening, _Connections(probes, timeout_s), stop)
    thread = Thread(target=_run, args=(loop, work), name="probes", daemon=True)
    thread.start()
    try:
        yield bound_port
    finally:
        loop.call_soon_threadsafe(stop.set)
        thread.join()


def _run(loop: asyncio.AbstractEventLoop, work: Coroutine[Any, Any, None]) -> None:
    asyncio.set_event_loop(loop)
    try:
        loop.run_until_complete(work)
        for task in (tasks := asyncio.all_tasks(loop)):
            task.cancel()
        loop.run_until_complete(asyncio.gather(*tasks, return_exceptions=True))
    finally:
        loop.close()


async def _serve(
    listening: list[socket.socket], connections: "_Connections", stop: asyncio.Event
) -> None:
    async with AsyncExitStack() as stack:
        for one in listening:
            server = await asyncio.start_server(
                connections.serve, sock=one, limit=MAX_HEAD_BYTES, backlog=MAX_CONNECTIONS
            )
            await stack.enter_async_context(server)
        await stop.wait()
        connections.close()


class _Connections:
    """The open connections, oldest first."""

    def __init__(self, probes: Probes, timeout_s: float) -> None:
        self._probes, self._timeout_s = probes, timeout_s
        self._open: dict[asyncio.StreamWriter, str] = {}  # to the caller's address

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Answers one request, and closes the connection whatever it did."""
        self._open[writer] = writer.get_extra_info("peername", ("",))[0]
        if len(self._open) > MAX_CONNECTIONS:
            self._close_one()
        try:
            await asyncio.wait_for(self._answer(reader, writer), self._timeout_s)
        except (OSError, asyncio.TimeoutError):
            pass  # the caller hung up or was too slow
        except (asyncio.IncompleteReadError, asyncio.LimitOverrunError):
            pass  # the caller sent no request of HTTP
        except Exception:
            _log.exception("an HTTP request failed")
        finally:
            self._open.pop(writer, None)
            writer.transport.abort()

    async def _answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = await reader.readuntil(b"\r\n\r\n")
        writer.write(_response(head.decode("latin-1"), self._probes))
        await writer.drain()
        writer.close()
        await writer.wait_closed()

    def close(self) -> None:
        """Hangs up on all callers."""
        for writer in list(self._open):
            self._hang_up(writer)

    def _close_one(self) -> None:
        (address, _), *_ = Counter(self._open.values()).most_common(1)
        self._hang_up(next(writer for writer, of in self._open.items() if of == address))

    def _hang_up(self, writer: asyncio.StreamWriter) -> None:
        del self._open[writer]
        writer.transport.abort()


def _response(head: str, probes: Probes) -> bytes:
    """The whole response to a request, of which `head` is all but the body."""
    request, *lines = head.split("\r\n")
    method, _, rest = request.partition(" ")
    path = rest.partition(" ")[0].partition("?")[0]
    headers = dict(_header(line) for line in lines)
    if method not in ("GET", "HEAD"):
        status, body, content_type = 501, b"only GET and HEAD are supported\n", "text/plain"
    elif path == "/metrics":
        encode, content_type = _encoder(headers.get("accept", ""))
        status, body = 200, encode(probes.registry)
    elif path == "/healthz":
        status, body = _probe(probes.alive(), "alive", "the event loop hangs, or a device is lost")
        content_type = "text/plain"
    elif path == "/readyz":
        status, body = _probe(probes.ready(), "ready", "loading, draining, or a device is lost")
        content_type = "text/plain"
    else:
        body = b"not found; there are /metrics, /healthz and /readyz\n"
        status, content_type = 404, "text/plain"
    answer = (
        f"HTTP/1.1 {status} {HTTPStatus(status).phrase}\r\nContent-Type: {content_type}\r\n"
        f"Content-Length: {len(body)}\r\nConnection: close\r\n\r\n"
    )
    return answer.encode() + (b"" if method == "HEAD" else body)


def _encoder(accept: str) -> tuple[Callable[[CollectorRegistry], bytes], str]:
    """What writes the metrics, and its content type; for a header that cannot be read, as for
    none."""
    try:
        return choose_encoder(accept)
    except Exception:  # such as of a version that is no number
        return choose_encoder("")


def _header(line: str) -> tuple[str, str]:
    name, _, value = line.partition(":")
    return name.strip().lower(), value.strip()


def _probe(good: bool, yes: str, no: str) -> tuple[int, bytes]:
    return 200 if good else 503, f"{yes if good else no}\n".encode()
