"""A device of host memory that is stricter than a real one: misuse fails the test at once.

Work on a stream happens when the stream is waited for, never earlier, so that whoever reads too
soon, or changes what is still to be copied, gets wrong bytes.
"""

import ctypes
from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np

from engines.device import HostBytes, KernelLaunch
from engines.errors import EngineError

GUARD = 64  # bytes behind every allocation that nobody may touch
GUARD_BYTE, FRESH_BYTE, FREED_BYTE = 0xA5, 0xC3, 0x5A
Work = tuple[Callable[[], object], tuple[int, ...]]  # and the addresses that it touches


@dataclass
class _Block:
    memory: "ctypes.Array[ctypes.c_uint8]"
    size: int

    @property
    def address(self) -> int:
        return ctypes.addressof(self.memory)

    def bytes(self) -> HostBytes:
        return np.ctypeslib.as_array(self.memory)


@dataclass
class FakeDevice:
    """Device protocol; also what a fake TensorRT puts its work on."""

    name: str = "NVIDIA Fake 100"
    index: int = 0
    capability: tuple[int, int] = (9, 0)
    sealed: bool = False  # no allocation from here on
    room: int = 1 << 40  # bytes that can be allocated
    faults: dict[str, EngineError] = field(default_factory=dict)  # raised by the named method, once
    downloaded: int = 0  # bytes
    peak: int = 0
    calls: list[str] = field(default_factory=list)
    _blocks: dict[int, _Block] = field(default_factory=dict)
    _freed: list[_Block] = field(default_factory=list)  # kept, so that no address comes twice
    _pinned: dict[int, _Block] = field(default_factory=dict)
    _streams: dict[int, list[Work]] = field(default_factory=dict)
    _recording: dict[int, list[Work]] = field(default_factory=dict)
    _graphs: dict[int, list[Work]] = field(default_factory=dict)
    _numbers: int = 0

    def use(self) -> None:
        self._enter("use")

    def allocate(self, size: int) -> int:
        self._enter("allocate")
        self._check_allocation()
        block = _block(size)
        self._blocks[block.address] = block
        self.peak = max(self.peak, self.allocated)
        return block.address

    def free(self, address: int) -> None:
        self._enter("free")
        self._check_idle(address)
        block = self._blocks.pop(address)
        _check_guard(block)
        block.bytes()[:] = FREED_BYTE
        self._freed.append(block)

    def pinned(self, size: int) -> HostBytes:
        self._enter("pinned")
        self._check_allocation()
        block = _block(size)
        self._pinned[block.address] = block
        return block.bytes()[:size]

    def unpin(self, memory: HostBytes) -> None:
        self._enter("unpin")
        self._check_idle(int(memory.ctypes.data))
        block = self._pinned.pop(memory.ctypes.data)
        _check_guard(block)
        block.bytes()[:] = FREED_BYTE
        self._freed.append(block)

    def stream(self) -> int:
        self._enter("stream")
        self._streams[self._number()] = []
        return self._numbers

    def end_stream(self, stream: int) -> None:
        self._enter("end_stream")
        assert not self._streams.pop(stream), "destroyed with work under way"

    def upload(self, address: int, host: HostBytes, stream: int) -> None:
        self._enter("upload")
        size, source = host.nbytes, self._pinned_address(host)
        self._check_range(address, size)
        self.enqueue(stream, (lambda: _move(address, source, size), (address, source)))

    def download(self, host: HostBytes, address: int, stream: int) -> None:
        self._enter("download")
        size, target = host.nbytes, self._pinned_address(host)
        self._check_range(address, size)
        self.downloaded += size
        self.enqueue(stream, (lambda: _move(target, address, size), (address, target)))

    def fill(self, address: int, byte: int, size: int, stream: int) -> None:
        self._enter("fill")
        self._check_range(address, size)
        self.enqueue(stream, (lambda: ctypes.memset(address, byte, size), (address,)))

    def synchronize(self, stream: int) -> None:
        self._enter("synchronize")
        assert stream not in self._recording, "waited for a stream that records"
        work, self._streams[stream] = self._streams[stream], []
        for item, _ in work:
            item()

    def begin_capture(self, stream: int) -> None:
        self._enter("begin_capture")
        assert stream in self._streams and stream not in self._recording
        self._recording[stream] = []

    def end_capture(self, stream: int) -> int:
        recorded = self._recording.pop(stream)
        self._enter("end_capture")
        self._graphs[self._number()] = recorded
        return self._numbers

    def launch(self, graph: int, stream: int) -> None:
        self._enter("launch")
        for item in self._graphs[graph]:
            self.enqueue(stream, item)

    def end_graph(self, graph: int) -> None:
        self._enter("end_graph")
        del self._graphs[graph]

    def load_kernel(self, code: bytes, entry: str, shared: int) -> int:
        raise NotImplementedError  # tests.export.kernel_device has a device that does

    def launch_kernel(self, launch: KernelLaunch, stream: int) -> None:
        raise NotImplementedError

    def unload_kernel(self, kernel: int) -> None:
        raise NotImplementedError

    def enqueue(self, stream: int, work: Work) -> None:
        """What runs when the stream gets there; recorded instead while it is captured."""
        self._recording.get(stream, self._streams[stream]).append(work)

    @property
    def allocated(self) -> int:
        """Bytes that are not freed."""
        return sum(block.size for block in self._blocks.values())

    def check_range(self, address: int, size: int) -> None:
        """What a kernel may touch."""
        self._check_range(address, size)

    def assert_nothing_left(self) -> None:
        """All that was taken was given back."""
        left = (self._blocks, self._pinned, self._streams, self._graphs, self._recording)
        assert not any(left), left

    def _enter(self, method: str) -> None:
        self.calls.append(method)
        if method in self.faults:
            raise self.faults.pop(method)

    def _number(self) -> int:
        self._numbers += 1
        return self._numbers

    def _check_allocation(self) -> None:
        assert not self.sealed, "allocated during a run"
        assert not self._recording, "allocated while recording"

    def _check_idle(self, address: int) -> None:
        under_way = {a for works in self._streams.values() for _, touched in works for a in touched}
        assert address not in under_way, "freed while work on it is under way"

    def _check_range(self, address: int, size: int) -> None:
        for block in self._blocks.values():
            if block.address <= address < block.address + block.size:
                end = block.address + block.size
                assert address + size <= end, f"{size} bytes reach beyond a buffer"
                return
        raise AssertionError("no live device memory there")

    def _pinned_address(self, host: HostBytes) -> int:
        address = int(host.ctypes.data)
        for block in self._pinned.values():
            if block.address <= address < block.address + block.size:
                assert address + host.nbytes <= block.address + block.size
                return address
        raise AssertionError("an asynchronous copy of memory that is not pinned")


def _block(size: int) -> _Block:
    assert size > 0
    block = _Block((ctypes.c_uint8 * (size + GUARD))(), size)
    block.bytes()[:size] = FRESH_BYTE
    block.bytes()[size:] = GUARD_BYTE
    return block


def _check_guard(block: _Block) -> None:
    assert (block.bytes()[block.size :] == GUARD_BYTE).all(), "written beyond a buffer"


def _move(target: int, source: int, size: int) -> None:
    ctypes.memmove(target, source, size)
