"""A device that is not the CPU, on the CPU: tensors that may not be mixed with the CPU's.

`DEVICE` stands for any accelerator. What runs under `second_device()` meets the rules of CUDA: an
operation takes tensors of one device, but for CPU scalars and CPU indices; a CPU generator draws
for the CPU alone; NumPy reads nothing but the CPU.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from importlib import import_module
from typing import Any
from unittest import mock

import torch
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_flatten, tree_map

DEVICE = torch.device("meta")  # torch knows it everywhere, and leaves all of its tensors to us

_aten = torch.ops.aten
MOVES = {_aten._to_copy.default, _aten.copy_.default}
INDEXING = {_aten.index.Tensor, _aten.index_put_.default, _aten.index_put.default}


class WrongDevice(RuntimeError):
    """What CUDA would refuse."""


class OnDevice(torch.Tensor):
    """A tensor of the second device; its numbers lie in a CPU tensor."""

    numbers: torch.Tensor

    @staticmethod
    def __new__(cls, numbers: torch.Tensor) -> "OnDevice":
        made: OnDevice = torch.Tensor._make_wrapper_subclass(
            cls, numbers.size(), strides=numbers.stride(),
            storage_offset=numbers.storage_offset(), dtype=numbers.dtype, device=DEVICE,
        )  # fmt: skip
        made.numbers = numbers
        return made

    def __tensor_flatten__(self) -> tuple[list[str], None]:
        return ["numbers"], None

    @staticmethod
    def __tensor_unflatten__(inner: Any, context: Any, size: Any, stride: Any) -> "OnDevice":
        return OnDevice(inner["numbers"])

    @classmethod
    def __torch_dispatch__(  # type: ignore[override]  # torch has it without "classmethod"
        cls, func: Any, types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        return _run(func, args, kwargs or {})

    def __format__(self, spec: str) -> str:
        return format(self.item() if self.dim() == 0 else self.numbers, spec)

    def __repr__(self) -> str:  # type: ignore[override]  # torch's takes arguments of its own
        return f"OnDevice({self.numbers})"


class _Mode(TorchDispatchMode):
    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return _run(func, args, kwargs or {})


class _FromNumbers(TorchFunctionMode):
    """Of Python's numbers, tensors are made below what a dispatch mode sees."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = dict(kwargs or {})
        if func is torch.tensor and kwargs.get("device") is not None:
            return func(*args, **kwargs | {"device": "cpu"}).to(kwargs["device"])
        if func is torch.Tensor.new_tensor and isinstance(args[0], OnDevice):
            return torch.tensor(*args[1:], **{"dtype": args[0].dtype} | kwargs).to(DEVICE)
        return func(*args, **kwargs)


@contextmanager
def second_device() -> Iterator[None]:
    """`DEVICE` can be used within."""
    optimizers = import_module("torch.optim.optimizer")
    devices = optimizers._get_fused_kernels_supported_devices()
    with (
        mock.patch.object(  # torch keeps a list of those whose fused optimizers it knows
            optimizers,
            "_get_fused_kernels_supported_devices",
            lambda: [*devices, DEVICE.type],
        ),
        _FromNumbers(),
        _Mode(),  # type: ignore[no-untyped-call]
    ):
        yield


def _run(func: Any, args: Any, kwargs: dict[str, Any]) -> Any:
    given = [x for x in tree_flatten((args, kwargs))[0] if isinstance(x, torch.Tensor)]
    ours = {id(x.numbers): x for x in given if isinstance(x, OnDevice)}
    there = kwargs.get("device")
    if func not in MOVES:
        _check(func, args, given, bool(ours))
    target = torch.device(there) if there is not None else (DEVICE if ours else None)
    if func is _aten.copy_.default:
        target = args[0].device
    generator = kwargs.get("generator")
    if target == DEVICE and generator is not None:
        raise WrongDevice(f"{func}: a generator of the CPU draws for the device")
    if there is not None:
        kwargs = kwargs | {"device": torch.device("cpu")}
    inner_args, inner_kwargs = tree_map(
        lambda x: x.numbers if isinstance(x, OnDevice) else x, (args, kwargs)
    )
    result = func(*inner_args, **inner_kwargs)
    if target != DEVICE:
        return result

    def wrapped(x: Any) -> Any:
        if not isinstance(x, torch.Tensor):
            return x
        return ours.get(id(x)) if id(x) in ours else OnDevice(x)

    return tree_map(wrapped, result)


def _check(func: Any, args: Any, given: list[torch.Tensor], any_ours: bool) -> None:
    if func in INDEXING:
        given = [args[0], *(x for x in args[2:] if isinstance(x, torch.Tensor))]
        if not isinstance(args[0], OnDevice) and any_ours:
            raise WrongDevice(f"{func}: a tensor of the CPU is indexed by one of the device")
    plain = [x for x in given if not isinstance(x, OnDevice) and x.dim() > 0]
    if any_ours and plain:
        shapes = [tuple(x.shape) for x in plain]
        raise WrongDevice(f"{func}: tensors of the CPU {shapes} among the device's")
