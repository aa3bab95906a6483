"""A TCP proxy that fails on purpose: resets, stalls, half-closed connections and slow links."""

import asyncio
import random
import socket
import struct
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Literal

from tests.hangs import HANG_S

Fault = Literal["none", "reset", "stall", "half-close", "slow"]
CHUNK = 16 << 10
SLOW_BYTES_PER_S = 2 << 20
RST_AT_CLOSE = struct.pack("ii", 1, 0)  # SO_LINGER on, for no time


@dataclass
class FaultProxy:
    """Forwards to `target`; each connection gets the fault after a random number of bytes."""

    target: int  # port on this machine
    seed: int
    fault: Fault = "none"  # of connections opened from now on
    after_bytes: tuple[int, int] = (20_000, 400_000)  # from the server, at least and at most
    port: int = 0
    met: int = 0  # faults that happened

    def __post_init__(self) -> None:
        self._random = random.Random(self.seed)
        self._accepted: dict[asyncio.Task[None], asyncio.StreamWriter] = {}

    async def serve(self, ready: threading.Event, stop: asyncio.Event) -> None:
        server = await asyncio.start_server(self._accept, "127.0.0.1", 0)
        self.port = server.sockets[0].getsockname()[1]
        ready.set()
        async with server:
            await stop.wait()
        await asyncio.sleep(0.05)  # what was accepted just now comes to _accept
        # A transport that is only told to close outlives the loop, and is found by the collector.
        for task, writer in self._accepted.items():
            task.cancel()
            _reset(writer)
        await asyncio.gather(*self._accepted, return_exceptions=True)
        for writer in self._accepted.values():
            with suppress(OSError):
                await writer.wait_closed()

    def _accept(self, client: asyncio.StreamReader, to_client: asyncio.StreamWriter) -> None:
        """At once: a task that is cancelled before it begins would not know of its connection."""
        task = asyncio.get_running_loop().create_task(self._connection(client, to_client))
        self._accepted[task] = to_client

    async def _connection(
        self, client: asyncio.StreamReader, to_client: asyncio.StreamWriter
    ) -> None:
        fault, limit = self.fault, self._random.randint(*self.after_bytes)
        try:
            server, to_server = await asyncio.open_connection("127.0.0.1", self.target)
        except (OSError, asyncio.CancelledError):  # the server is down, or the test is over
            _reset(to_client)
            return
        up = asyncio.create_task(_forward(client, to_server))
        try:
            await self._answer(server, to_client, fault, limit)
        except OSError:
            pass
        finally:
            up.cancel()
            _reset(to_client)
            to_server.close()
            for ending in (up, to_client.wait_closed(), to_server.wait_closed()):
                with suppress(OSError, asyncio.CancelledError):
                    await ending

    async def _answer(
        self,
        server: asyncio.StreamReader,
        to_client: asyncio.StreamWriter,
        fault: Fault,
        limit: int,
    ) -> None:
        passed = 0
        while data := await server.read(CHUNK):
            if fault in ("reset", "stall", "half-close") and passed + len(data) > limit:
                to_client.write(data[: limit - passed])  # in the middle of a frame
                self.met += 1
                if fault == "half-close":
                    to_client.write_eof()
                    await asyncio.sleep(0.3)
                elif fault == "stall":
                    await asyncio.sleep(0.7)
                return
            if fault == "slow":
                self.met += 1
                await asyncio.sleep(len(data) / SLOW_BYTES_PER_S)
            to_client.write(data)
            await to_client.drain()
            passed += len(data)


async def _forward(source: asyncio.StreamReader, sink: asyncio.StreamWriter) -> None:
    with suppress(OSError):
        while data := await source.read(CHUNK):
            sink.write(data)
            await sink.drain()


def _reset(writer: asyncio.StreamWriter) -> None:
    connection = writer.get_extra_info("socket")
    if connection is not None:
        with suppress(OSError):
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RST_AT_CLOSE)
    writer.close()


@contextmanager
def proxying(target: int, seed: int = 0) -> Iterator[FaultProxy]:
    """A proxy on a thread of its own."""
    proxy, ready = FaultProxy(target, seed), threading.Event()
    loop, stop = asyncio.new_event_loop(), asyncio.Event()

    def run() -> None:
        with asyncio.Runner(loop_factory=lambda: loop) as runner:
            runner.run(proxy.serve(ready, stop))

    thread = threading.Thread(target=run)
    thread.start()
    try:
        assert ready.wait(HANG_S)
        yield proxy
    finally:
        loop.call_soon_threadsafe(stop.set)
        thread.join(HANG_S)
