"""Compiled kernels for the fake device: Triton's interpreter runs their source on its memory.

Needs TRITON_INTERPRET=1 in the environment before Triton is imported, which tests/conftest.py sees
to. A kernel's code is its name.
"""

import ctypes
import sys
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch

from bundle.fused import Fused, Kernel
from engines.device import Argument, KernelLaunch
from export.fused.compile import POINTERS
from tests.engines.fake_device import FakeDevice

DTYPES = {"*fp16": torch.float16, "*fp32": torch.float32, "*i32": torch.int32}


class KernelDevice(FakeDevice):
    """A fake device that runs the kernels of one bundle."""

    def __init__(self, fused: Fused, **given: Any) -> None:
        super().__init__(**given)
        self.program = fused.programs["9.0"]
        self.idle = ""  # a function that does nothing
        self.loaded: dict[int, str] = {}

    def load_kernel(self, code: bytes, entry: str, shared: int) -> int:
        self._enter("load_kernel")
        assert not self.sealed and not self._recording, "loaded during a run"
        name = code.decode()
        assert self.program.kernels[name].entry == entry
        number = self._number()
        self.loaded[number] = name
        return number

    def launch_kernel(self, launch: KernelLaunch, stream: int) -> None:
        self._enter("launch_kernel")
        assert stream != 0, "on the default stream"
        name = self.loaded[launch.kernel]
        kernel, binary = self.program.kernels[name], self.program.binaries[name]
        assert (launch.threads, launch.shared) == (binary.threads, binary.shared)
        visible = launch.arguments[: len(launch.arguments) - binary.hidden]
        assert all(a == 0 for a in launch.arguments[len(visible) :])
        touched = tuple(int(a) for a in visible if isinstance(a, np.uint64))
        for address in touched:
            self.check_range(address, 1)
            assert address % 16 == 0, "compiled for addresses that are multiples of 16"
        self.enqueue(stream, (lambda: self._interpret(kernel, launch.grid, visible), touched))

    def unload_kernel(self, kernel: int) -> None:
        self._enter("unload_kernel")
        del self.loaded[kernel]

    def assert_nothing_left(self) -> None:
        super().assert_nothing_left()
        assert not self.loaded, self.loaded

    def _interpret(
        self, kernel: Kernel, grid: tuple[int, int, int], given: Sequence[Argument]
    ) -> None:
        function = interpreted(kernel.entry)
        names = [n for n in function.arg_names if n not in kernel.constants]
        arguments = [
            self._tensor(int(a), DTYPES[POINTERS[n]]) if isinstance(a, np.uint64) else int(a)
            for n, a in zip(names, given, strict=True)
        ]
        if kernel.entry != self.idle:
            function[grid](*arguments, **kernel.constants)

    def _tensor(self, address: int, dtype: torch.dtype) -> torch.Tensor:
        """From there to the end of its buffer."""
        for block in self._blocks.values():
            if block.address <= address < block.address + block.size:
                size = block.address + block.size - address
                memory = (ctypes.c_uint8 * size).from_address(address)
                return torch.frombuffer(memory, dtype=dtype)
        raise AssertionError("no live device memory there")


def interpreted(entry: str) -> Any:
    """The kernel as Triton's interpreter runs it."""
    from export.fused import kernel as label_kernel

    function: Callable[..., Any] = getattr(label_kernel, entry)
    assert "interpreter" in type(function).__module__, (
        f"TRITON_INTERPRET was not set when triton was imported ({'triton' in sys.modules})"
    )
    return function
