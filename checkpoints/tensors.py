"""Bytes of a foreign file to tensors, each checked against its bytes before it is made.

Every tensor is a copy, dense and aligned: nothing keeps the file's buffer alive or shares memory.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from checkpoints.allowance import Allowance, Refused, shown

MAX_AXES = 8
MAX_EXTENT = 1 << 40  # of the whole shape, for tensors without elements
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
# How numpy reads the bytes. It has no bfloat16, and a bool of neither 0 nor 1 must not become one.
STORED = {"bfloat16": "<i2", "bool": "|u1"}
# What numpy calls little-endian dtypes in its pickles and .npy files.
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
    """A run of elements of one type."""

    dtype: str  # of DTYPES
    data: memoryview

    def __post_init__(self) -> None:
        if len(self.data) % self.item_bytes:
            raise Refused(f"a storage of {self.dtype} has {len(self.data)} bytes")

    @property
    def item_bytes(self) -> int:
        """Size of one element."""
        return DTYPES[self.dtype].itemsize

    def __len__(self) -> int:
        return len(self.data) // self.item_bytes


def tensor_from_storage(
    storage: Storage,
    offset: int,
    shape: Sequence[int],
    strides: Sequence[int],  # in elements, as is offset
    allowance: Allowance,
) -> Tensor:
    """A copy of a strided view of the storage. Raises Refused where the view leaves it."""
    sizes = (offset, *shape, *strides)
    if len(shape) != len(strides) or len(shape) > MAX_AXES or min(sizes) < 0:
        raise Refused(f"a tensor has offset {offset}, shape {list(shape)}, strides {list(strides)}")
    if math.prod(max(extent, 1) for extent in shape) > MAX_EXTENT:
        raise Refused(f"a tensor has shape {list(shape)}")
    dtype = DTYPES[storage.dtype]
    count = math.prod(shape)
    if count == 0:
        return torch.empty(shape, dtype=dtype)
    last = offset + sum((n - 1) * stride for n, stride in zip(shape, strides, strict=True))
    # A view of more elements than there are would repeat some: copied, it outgrows the file.
    if last >= len(storage) or count > len(storage):
        raise Refused(
            f"a tensor of shape {list(shape)} does not fit its storage of {len(storage)} elements"
        )
    allowance.spend_bytes(count * storage.item_bytes)
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
    data: memoryview, dtype: str, shape: Sequence[int], fortran: bool, allowance: Allowance
) -> Tensor:
    """A numpy array of exactly these bytes, `dtype` as numpy spells it ("<f4"). Raises Refused."""
    order, kind = dtype[:1], dtype[1:]
    if order == ">":
        raise Refused("its arrays are big-endian; save them on a little-endian machine")
    if order not in ("<", "|", "=") or kind not in NUMPY_DTYPES:
        raise Refused(f"it has an array of {shown(dtype)}; only plain numbers are read")
    storage = Storage(NUMPY_DTYPES[kind], data)
    if math.prod(shape) != len(storage):
        raise Refused(f"an array of shape {list(shape)} has {len(storage)} elements")
    strides = _strides(shape[::-1] if fortran else shape)
    return tensor_from_storage(storage, 0, shape, strides[::-1] if fortran else strides, allowance)


def _strides(shape: Sequence[int]) -> list[int]:
    """Of a dense array, last axis fastest."""
    return [math.prod(shape[axis + 1 :]) for axis in range(len(shape))]
