"""ModelStreamInfer: one answer to each request, in their order, several under way."""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Coroutine
from typing import Any

MAX_UNDER_WAY = 4  # keeps an engine busy across the caller's way to and fro
Answer = Callable[[bytes], Coroutine[Any, Any, bytes]]


class Exchange:
    """One call's requests under way; further ones are read as answers are taken."""

    def __init__(self, answer: Answer) -> None:
        """`answer` raises nothing."""
        self._answer = answer
        self._room = asyncio.Semaphore(MAX_UNDER_WAY)
        self._under_way: asyncio.Queue[asyncio.Task[bytes] | Exception | None] = asyncio.Queue()
        self._tasks: set[asyncio.Task[bytes]] = set()

    def stop(self, error: Exception) -> None:
        """Has the call end with this error after the requests that are under way."""
        self._under_way.put_nowait(error)

    async def answers(self, requests: AsyncIterator[bytes]) -> AsyncGenerator[bytes, None]:
        """Until there are no more requests; raises what `stop` was given."""
        reading = asyncio.create_task(self._read(requests))
        try:
            while (next_one := await self._under_way.get()) is not None:
                if isinstance(next_one, Exception):
                    raise next_one
                yield await next_one
                self._room.release()
        finally:
            for task in (reading, *self._tasks):
                task.cancel()
            await asyncio.gather(reading, *self._tasks, return_exceptions=True)

    async def _read(self, requests: AsyncIterator[bytes]) -> None:
        try:
            while True:
                await self._room.acquire()
                task = asyncio.create_task(self._answer(await anext(requests)))
                self._tasks.add(task)
                task.add_done_callback(self._tasks.discard)
                self._under_way.put_nowait(task)
        except StopAsyncIteration:
            pass
        finally:  # also when the caller is gone
            self._under_way.put_nowait(None)
