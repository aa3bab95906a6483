"""Tensors from the bytes of a foreign file; shapes are checked before memory is allocated.

Every tensor is a dense, aligned copy: none shares memory with another or with the file's buffer.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from checkpoints.read_budget import FileRefused, ReadBudget, shown

MAX_AXES = 8
MAX_EXTENT = 1 << 40  # product of the nonzero sizes of a shape, for tensors without elements
DTYPES = {
    "float16": torch.float16,
    "bfloat16": torch.bfloat16,
    "float32": torch.float32,
    "float64": torch.float64,
    "int8": torch.int8,
    "int16": torch.int16,
    "int32": torch.int32,
    "int64": torch.int64,
    "uint8": torch.uint8,
    "bool": torch.bool,
}
# dtypes that numpy reads the bytes as. It has no bfloat16; a bool byte may be neither 0 nor 1.
STORED = {"bfloat16": "<i2", "bool": "|u1"}
# numpy's names of little-endian dtypes, in its pickles and .npy files.
NUMPY_DTYPES = {
    "f2": "float16",
    "f4": "float32",
    "f8": "float64",
    "i1": "int8",
    "i2": "int16",
    "i4": "int32",
    "i8": "int64",
    "u1": "uint8",
    "b1": "bool",
}


@dataclass(frozen=True)
class Storage:
    """A run of elements of one dtype."""

    dtype: str  # a key of DTYPES
    data: memoryview

    def __post_init__(self) -> None:
        if len(self.data) % self.item_bytes:
            raise FileRefused(f"a storage of {self.dtype} has {len(self.data)} bytes")

    @property
    def item_bytes(self) -> int:
        """Size of one element, bytes."""
        return DTYPES[self.dtype].itemsize

    def __len__(self) -> int:
        return len(self.data) // self.item_bytes


def tensor_from_storage(
    storage: Storage,
    offset: int,
    shape: Sequence[int],
    strides: Sequence[int],  # in elements, like offset
    budget: ReadBudget,
) -> Tensor:
    """A copy of a strided view of the storage. Raises FileRefused for a view beyond its end."""
    sizes = (offset, *shape, *strides)
    if len(shape) != len(strides) or len(shape) > MAX_AXES or min(sizes) < 0:
        raise FileRefused(
            f"a tensor has offset {offset}, shape {list(shape)}, strides {list(strides)}"
        )
    if math.prod(max(extent, 1) for extent in shape) > MAX_EXTENT:
        raise FileRefused(f"a tensor has shape {list(shape)}")
    dtype = DTYPES[storage.dtype]
    count = math.prod(shape)
    if count == 0:
        return torch.empty(shape, dtype=dtype)
    last = offset + sum((n - 1) * stride for n, stride in zip(shape, strides, strict=True))
    # A view with more elements than the storage repeats some: its copy could outgrow the file.
    if last >= len(storage) or count > len(storage):
        raise FileRefused(
            f"a tensor of shape {list(shape)} does not fit its storage of {len(storage)} elements"
        )
    budget.spend_bytes(count * storage.item_bytes)
    array = np.ndarray(
        tuple(shape),
        np.dtype(STORED.get(storage.dtype) or np.dtype(storage.dtype).newbyteorder("<")),
        storage.data,
        offset * storage.item_bytes,
        tuple(stride * storage.item_bytes for stride in strides),
    )
    tensor = torch.from_numpy(np.array(array, array.dtype.newbyteorder("="), order="C"))
    if storage.dtype == "bfloat16":
        return tensor.view(torch.bfloat16)
    return tensor != 0 if storage.dtype == "bool" else tensor


def tensor_from_array(
    data: memoryview, dtype: str, shape: Sequence[int], fortran: bool, budget: ReadBudget
) -> Tensor:
    """A numpy array that fills `data` exactly; `dtype` is numpy's text for it, such as "<f4".

    Raises FileRefused.
    """
    order, kind = dtype[:1], dtype[1:]
    if order == ">":
        raise FileRefused("its arrays are big-endian; save them on a little-endian machine")
    if order not in ("<", "|", "=") or kind not in NUMPY_DTYPES:
        raise FileRefused(f"it has an array of {shown(dtype)}; only plain numbers are read")
    storage = Storage(NUMPY_DTYPES[kind], data)
    if math.prod(shape) != len(storage):
        raise FileRefused(f"an array of shape {list(shape)} has {len(storage)} elements")
    strides = _strides(shape[::-1] if fortran else shape)
    return tensor_from_storage(storage, 0, shape, strides[::-1] if fortran else strides, budget)


def _strides(shape: Sequence[int]) -> list[int]:
    """Strides of a dense array in C order, in elements."""
    return [math.prod(shape[axis + 1 :]) for axis in range(len(shape))]
