"""The requests of one ModelStreamInfer call: several are pending at a time, answered in order."""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Coroutine
from typing import Any

MAX_PENDING = 4  # enough to keep an engine busy during a network round trip
Answer = Callable[[bytes], Coroutine[Any, Any, bytes]]


class Exchange:
    """The pending requests of one call, at most MAX_PENDING at a time."""

    def __init__(self, answer: Answer) -> None:
        """`answer` makes the response to one request; it must not raise."""
        self._answer = answer
        self._free = asyncio.Semaphore(MAX_PENDING)
        # Responses in the order of the requests, then None at their end; an error from `stop`.
        self._pending: asyncio.Queue[asyncio.Task[bytes] | Exception | None] = asyncio.Queue()
        self._tasks: set[asyncio.Task[bytes]] = set()

    def stop(self, error: Exception) -> None:
        """Ends the call with this error after the pending requests."""
        self._pending.put_nowait(error)

    async def answers(self, requests: AsyncIterator[bytes]) -> AsyncGenerator[bytes, None]:
        """Responses until there are no more requests; raises the error given to `stop`."""
        reading = asyncio.create_task(self._read(requests))
        try:
            while (pending := await self._pending.get()) is not None:
                if isinstance(pending, Exception):
                    raise pending
                yield await pending
                self._free.release()
        finally:
            for task in (reading, *self._tasks):
                task.cancel()
            await asyncio.gather(reading, *self._tasks, return_exceptions=True)

    async def _read(self, requests: AsyncIterator[bytes]) -> None:
        try:
            while True:
                await self._free.acquire()
                task = asyncio.create_task(self._answer(await anext(requests)))
                self._tasks.add(task)
                task.add_done_callback(self._tasks.discard)
                self._pending.put_nowait(task)
        except StopAsyncIteration:
            pass
        finally:  # also when the caller is gone
            self._pending.put_nowait(None)
