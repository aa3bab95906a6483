"""Memory that a client on the same host shares: checked before it is mapped, written by slots.

Enter: the client's description of its memory, and messages. Leave: the messages' bytes in that
memory. Nothing has to be cleaned up, whichever side is killed: the memory has no name, and the
kernel frees it with the last descriptor.
"""

import asyncio
import fcntl
import mmap
import os
import stat
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import contextmanager

from labelmint.v1 import label_service_pb2 as pb
from service.errors import BadRequest, FailedPrecondition
from service.framing import Part

MAX_BYTES = 1 << 30
NONCE_BYTES = 16
NAME = "/memfd:labelmint"  # target of its descriptor's link in /proc
_LOCAL = ("ipv4:127.", "ipv6:[::1]", "ipv6:%5B::1%5D", "unix:")


class Slots:
    """A ring of slots, one message in each; a slot is written again once its reader released it."""

    def __init__(self, memory: mmap.mmap, slot_bytes: int, slots: int) -> None:
        self._memory, self._slot_bytes, self._slots = memory, slot_bytes, slots
        self._written = self._released = 0
        self._changed = asyncio.Event()
        self._error: Exception | None = None

    async def follow(self, requests: AsyncIterator[pb.StreamSharedSamplesRequest]) -> None:
        """Counts the slots that the reader releases; `wait_free` raises what ends the requests."""
        try:
            async for request in requests:
                if not self._released <= request.released <= self._written:
                    raise BadRequest(
                        f"released is {request.released}; it must be at least "
                        f"{self._released}, the messages released before, and at most "
                        f"{self._written}, the messages sent"
                    )
                self._released = request.released
                self._changed.set()
            self.stop(BadRequest("the requests have ended, so no slot will be released"))
        except Exception as error:
            self.stop(error)

    def stop(self, error: Exception) -> None:
        """Has `wait_free` raise this error instead of waiting."""
        self._error = error
        self._changed.set()

    async def wait_free(self) -> None:
        """Returns when the next slot is free. Raises the error given to `stop`."""
        while self._written - self._released >= self._slots:
            if self._error is not None:
                raise self._error
            self._changed.clear()
            await self._changed.wait()

    def write(self, parts: Sequence[Part]) -> int:
        """Copies a message into the next slot, which is free; returns its bytes. Runs off the
        event loop."""
        begin = position = self._written % self._slots * self._slot_bytes
        for part in parts:
            size = part.nbytes if isinstance(part, memoryview) else len(part)
            self._memory[position : position + size] = (
                part.cast("B") if isinstance(part, memoryview) else part
            )
            position += size
        self._written += 1
        return position - begin


@contextmanager
def opened_slots(shared: pb.SharedMemory, peer: str, max_message_bytes: int) -> Iterator[Slots]:
    """The slots of a client's memory, mapped until the block ends.

    Raises:
        BadRequest: the slots are too small, too many or none, or the nonce has another length.
        FailedPrecondition: the client is on another host, its memory cannot be reached, or it is
            not the memory that the description says.
    """
    size = _checked_size(shared, max_message_bytes)
    if not peer.startswith(_LOCAL):
        raise FailedPrecondition(
            "memory is shared on one host only, and this client is on another host; use "
            "StreamSamples"
        )
    descriptor = _opened(f"/proc/{shared.pid}/fd/{shared.fd}")
    try:
        _check_sealed(descriptor, size)
        with _mapped(descriptor, size) as memory:
            if memory[size - NONCE_BYTES :] != shared.nonce:
                raise FailedPrecondition(
                    "the memory does not hold the nonce, so it is not the caller's"
                )
            yield Slots(memory, shared.slot_bytes, shared.slots)
    finally:
        os.close(descriptor)


def _checked_size(shared: pb.SharedMemory, max_message_bytes: int) -> int:
    size: int = shared.slot_bytes * shared.slots + NONCE_BYTES
    if shared.slot_bytes < max_message_bytes or not shared.slots:
        raise BadRequest(
            f"memory has {shared.slots} slots of {shared.slot_bytes} bytes; it needs at least one "
            f"slot, of at least max_message_bytes, {max_message_bytes}"
        )
    if size > MAX_BYTES:
        raise BadRequest(f"memory has {size} bytes, the limit is {MAX_BYTES}; share fewer slots")
    if len(shared.nonce) != NONCE_BYTES:
        raise BadRequest(f"memory.nonce has {len(shared.nonce)} bytes; it needs {NONCE_BYTES}")
    return size


def _opened(path: str) -> int:
    """A descriptor of the memory. Its link is read first, because opening may have effects."""
    try:
        if os.readlink(path).startswith(NAME):
            return os.open(path, os.O_RDWR | os.O_CLOEXEC | os.O_NONBLOCK)
    except OSError:
        pass  # another namespace or another user, or no such process
    raise FailedPrecondition(
        "the memory cannot be reached from here; the client's process is another user's, or in "
        "another container"
    )


def _mapped(descriptor: int, size: int) -> mmap.mmap:
    try:
        return mmap.mmap(descriptor, size)
    except OSError as error:  # such as a seal against writes
        raise FailedPrecondition(f"the memory cannot be mapped: {error.strerror}") from error


def _check_sealed(descriptor: int, size: int) -> None:
    """Raises FailedPrecondition unless the memory has this size and cannot shrink.

    A file that shrinks under its mapping would kill the process that writes to it.
    """
    status = os.fstat(descriptor)
    seals = fcntl.fcntl(descriptor, fcntl.F_GET_SEALS)
    if not stat.S_ISREG(status.st_mode) or status.st_size != size:
        raise FailedPrecondition(
            f"the memory has {status.st_size} bytes, its description says {size}"
        )
    if not seals & fcntl.F_SEAL_SHRINK:
        raise FailedPrecondition("the memory is not sealed against shrinking")
