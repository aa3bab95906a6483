"""Half precision on a CPU at the speed of float32, for as long as a graph is traced.

torch's exporter runs what it traces, and torch's own kernels for float16 take about a hundred
times longer than those for float32 there. What is traced is not changed by this: only how the
values come about that go through it, which nobody keeps.
"""

import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor

PRODUCTS = ("mm", "addmm", "bmm", "baddbmm")
CONVOLUTIONS = ("_slow_conv2d_forward", "slow_conv_transpose2d")


@contextmanager
def half_by_float32() -> Iterator[None]:
    """Convolutions and matrix products of float16 tensors compute in float32 and round."""
    library = torch.library.Library("aten", "IMPL")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of overriding, which is the point
        for name in (*PRODUCTS, *CONVOLUTIONS):
            operator = getattr(torch.ops.aten, name).default
            kernel = torch.library.get_kernel(operator, "CPU")
            library.impl(
                name, _computing_in_float32(kernel), "CPU", with_keyset=True, allow_override=True
            )
    try:
        yield
    finally:
        library._destroy()


def _computing_in_float32(kernel: Any) -> Callable[..., Any]:
    def run(keyset: Any, *given: Any, **named: Any) -> Any:
        if not any(isinstance(value, Tensor) and value.dtype == torch.float16 for value in given):
            return kernel.call_boxed(keyset, *given, **named)
        widened = [
            value.float() if isinstance(value, Tensor) and value.dtype == torch.float16 else value
            for value in given
        ]
        return kernel.call_boxed(keyset, *widened, **named).half()

    return run
