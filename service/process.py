"""The server as a process: signals, memory settings, and one line of output when ready."""

import asyncio
import contextlib
import ctypes
import logging
import os
import signal
import socket
import threading
import time
from collections.abc import Callable
from types import FrameType
from typing import Any

from service.config import Config
from service.loading import open_models
from service.metrics import Metrics
from service.server import Server

M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3  # from glibc's malloc.h
KEEP_BYTES = 32 << 20  # the largest mmap threshold that glibc accepts
EXIT_BY_SECOND_SIGNAL = 130
SIGNALS = (signal.SIGTERM, signal.SIGINT)
EXIT_S = 4.0  # after the drain, for engines to end their runs and free their devices
LOGGING_S = 0.5  # for the line that says that they have not
_log = logging.getLogger(__name__)


def keep_freed_memory() -> None:
    """Makes glibc keep freed buffers of up to 32 MiB, so that messages reuse their pages.

    Otherwise every message is page-faulted in again: 14 times slower for 4 MiB messages, as
    measured. In return, memory stays at its peak. This overrides the environment variables
    MALLOC_MMAP_THRESHOLD_ and MALLOC_TRIM_THRESHOLD_. Without glibc it does nothing.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        mallopt(M_MMAP_THRESHOLD, KEEP_BYTES)
        mallopt(M_TRIM_THRESHOLD, KEEP_BYTES)


async def serve_until_signal(config: Config, announce: Callable[[str], None]) -> None:
    """Runs a server until SIGTERM or SIGINT has drained it. Raises StartError."""
    stop = asyncio.Event()
    limit_s = config.drain_delay_s + config.drain_grace_s + EXIT_S
    _handle_signals(stop, limit_s)  # before bundles load, which can take long
    metrics = Metrics()
    loop = asyncio.get_running_loop()
    async with Server(config, metrics).running() as server:
        loading = loop.run_in_executor(None, open_models, config, metrics)
        stopping = asyncio.ensure_future(stop.wait())
        await _first_of(loading, stopping)
        if stop.is_set():
            os._exit(0)  # nothing is served yet; loading cannot be interrupted
        serving = asyncio.ensure_future(server.serve(await loading))
        await _first_of(serving, stopping)
        if stop.is_set():
            os._exit(0)
        await serving
        announce(_ready_line(server))
        await _first_of(server.failed, stopping)
        if server.failed.done():
            server.failed.result()
        await server.drain()
        if server.repository.opening:
            os._exit(0)  # all calls have ended; do not wait for a bundle that is being loaded


def exit_after(begin: threading.Event, seconds: float) -> None:
    """Ends the process this time after `begin`, with exit code 0, whatever it then waits for.

    It runs on a thread of its own, so that an event loop or an engine that hangs cannot stop it,
    and logs on another, because nobody may read what is logged.
    """

    def log() -> None:
        _log.warning("the server has not stopped in %g s; the process ends now", seconds)
        logging.shutdown()

    def end() -> None:
        begin.wait()
        time.sleep(seconds)
        logging_thread = threading.Thread(target=log, daemon=True)
        logging_thread.start()
        logging_thread.join(LOGGING_S)
        os._exit(0)

    threading.Thread(target=end, name="exit", daemon=True).start()


async def _first_of(*futures: "asyncio.Future[Any]") -> None:
    await asyncio.wait(futures, return_when=asyncio.FIRST_COMPLETED)


def _handle_signals(stop: asyncio.Event, limit_s: float) -> None:
    """Sets `stop` at the first signal, which ends the process after `limit_s` at the latest, and
    exits at the second.

    A thread of its own is told of them by the system, through a socket. Neither the event loop nor
    Python's handlers would do: both need the main thread, which may hang in a write to a log that
    nobody reads, or in a file on a disk that does not answer.
    """
    loop, signaled = asyncio.get_running_loop(), threading.Event()
    exit_after(signaled, limit_s)
    told, telling = socket.socketpair()
    telling.setblocking(False)
    signal.set_wakeup_fd(telling.fileno(), warn_on_full_buffer=False)

    def take() -> None:
        with told, telling:  # which keeps them open
            while number := told.recv(1):
                if number[0] not in SIGNALS:
                    continue
                if signaled.is_set():
                    os._exit(EXIT_BY_SECOND_SIGNAL)
                signaled.set()
                with contextlib.suppress(RuntimeError):  # the loop has ended already
                    loop.call_soon_threadsafe(stop.set)

    for number in SIGNALS:
        signal.signal(number, _ignore)  # without a handler, nothing is told
    threading.Thread(target=take, name="signals", daemon=True).start()


def _ignore(number: int, frame: FrameType | None) -> None:
    """See `_handle_signals`."""


def _ready_line(server: Server) -> str:
    host = server.config.listen.rpartition(":")[0]
    names = ", ".join(server.repository.models) or "none"
    line = f"labelmint ready on {host}:{server.port}, models: {names}"
    if server.metrics_port is not None:
        line += f", metrics on {host}:{server.metrics_port}"
    return line
