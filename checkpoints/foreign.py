"""Plain data and tensors from files of other projects; nothing in the files is run.

In: the path of a StyleGAN2-ADA .pkl, a StyleGAN2 TensorFlow .pkl, a torch .pt or .pth, or a .npy.
Out: names, plain values and tensors; checkpoints.families makes generators of them. The kind of a
file follows from its content, not its suffix. Each file is read once, from one handle.
"""

import os
import re
import stat
from pathlib import Path

from torch import Tensor

from checkpoints.downloads import HEAD_BYTES, failed_download, unfinished_download
from checkpoints.errors import ForeignFileError
from checkpoints.networks import (
    PickledNetwork,
    TensorFlowNetwork,
    is_module,
    is_tensorflow,
    network_of,
    pickled_network_from_record,
    tensorflow_network_from_record,
)
from checkpoints.pickles import pickle_from_bytes
from checkpoints.read_budget import FileRefused, ReadBudget
from checkpoints.tensors import tensor_from_array
from checkpoints.torch_content import TorchFile, content_from_record
from checkpoints.torch_files import LEGACY_MAGIC, archive_from_legacy, archive_from_zip
from checkpoints.values import Values

__all__ = [
    "ForeignFile",
    "PickledNetwork",
    "TensorFlowNetwork",
    "TorchFile",
    "read_array",
    "read_foreign",
]

MAX_FILE_BYTES = 8 << 30
KINDS = {  # the first match counts: the legacy magic begins like a pickle
    "zip": re.compile(rb"PK\x03\x04"),
    "legacy": re.compile(re.escape(LEGACY_MAGIC)),
    "pickle": re.compile(rb"\x80[\x02-\x05]"),  # its protocol follows the magic byte
    "npy": re.compile(rb"\x93NUMPY[\x01-\x03]\x00"),
    "safetensors": re.compile(rb".{8}\{", re.DOTALL),
}
ARRAY_HEADER = re.compile(
    rb"\{'descr': '([<>|][a-zA-Z]\d+)', 'fortran_order': (True|False), "
    rb"'shape': \(((?:\d{1,18}, ?)*(?:\d{1,18})?)\), ?\} *\n?"
)


ForeignFile = PickledNetwork | TensorFlowNetwork | TorchFile


def read_foreign(path: Path) -> ForeignFile:
    """The network or the content of a file.

    A StyleGAN2-ADA or TensorFlow pickle gives the generator's moving average, G_ema or Gs. Memory
    is bounded by the size of the file and the limits in checkpoints.read_budget. Raises
    ForeignFileError, one line that names the file.
    """
    try:
        kind, data = _read(path)
        return _foreign_from_bytes(kind, data, path)
    except FileRefused as error:
        raise ForeignFileError(f"{path}: {error}{unfinished_download(path)}") from error


def read_array(path: Path) -> Tensor:
    """The array of a .npy file, in its own dtype. Raises ForeignFileError."""
    try:
        kind, data = _read(path)
        if kind != "npy":
            raise FileRefused("it is not a numpy array (.npy)")
        return _tensor_from_npy(data, ReadBudget(len(data)))
    except FileRefused as error:
        raise ForeignFileError(f"{path}: {error}") from error


def _foreign_from_bytes(kind: str, data: memoryview, path: Path) -> ForeignFile:
    budget = ReadBudget(len(data))
    if kind in ("zip", "legacy"):
        read = archive_from_zip if kind == "zip" else archive_from_legacy
        archive = read(data, budget)
        values = Values(budget, archive.storage)
        if is_module(network_of(archive.record)):
            return pickled_network_from_record(archive.record, values)
        return TorchFile(content_from_record(archive.record, values, path))
    if kind == "pickle":
        record = pickle_from_bytes(data, 0, budget).record
        if is_tensorflow(record):
            return tensorflow_network_from_record(record, Values(budget))
        return pickled_network_from_record(record, Values(budget))
    if kind == "npy":
        raise FileRefused(
            "it is a numpy array (.npy), not a network; only a mean latent is given as .npy"
        )
    raise FileRefused(
        "it is a safetensors file; only .safetensors files with a card beside them are read"
    )


def _tensor_from_npy(data: memoryview, budget: ReadBudget) -> Tensor:
    length_bytes = 2 if data[6] == 1 else 4  # depends on the version of the format
    start = 8 + length_bytes
    end = start + int.from_bytes(data[8:start], "little")
    header = ARRAY_HEADER.fullmatch(bytes(data[start : min(end, start + HEAD_BYTES)]))
    if header is None:
        raise FileRefused("its .npy header is broken, or its array does not hold plain numbers")
    shape = [int(extent) for extent in header[3].split(b",") if extent.strip()]
    fortran = header[2] == b"True"
    return tensor_from_array(data[end:], header[1].decode(), shape, fortran, budget)


def _read(path: Path) -> tuple[str, memoryview]:
    """Kind and bytes of a regular file. A file of an unknown kind is not read beyond its head."""
    try:
        with open(path, "rb", buffering=0, opener=_open) as stream:
            status = os.fstat(stream.fileno())
            if not stat.S_ISREG(status.st_mode):
                raise FileRefused("it is not a regular file")
            if status.st_size > MAX_FILE_BYTES:
                raise FileRefused(
                    f"it has {status.st_size} bytes; at most {MAX_FILE_BYTES} are read"
                )
            head = stream.read(HEAD_BYTES)
            kind = _kind_from_head(head[: status.st_size], status.st_size)
            data = memoryview(bytearray(status.st_size))
            filled = min(len(head), len(data))
            data[:filled] = head[:filled]
            while count := stream.readinto(data[filled:]):
                filled += count
            if filled < len(data):
                raise FileRefused(f"it shrank to {filled} bytes while it was read")
            return kind, data.toreadonly()
    except OSError as error:
        raise FileRefused(f"it cannot be read ({error.strerror})") from error


def _open(path: str, flags: int) -> int:
    # O_NONBLOCK: opening a pipe would otherwise wait for its writer before it can be refused.
    return os.open(path, flags | os.O_NONBLOCK)


def _kind_from_head(head: bytes, size: int) -> str:
    what = failed_download(head, size)
    if what:
        raise FileRefused(f"it is {what}")
    for kind, magic in KINDS.items():
        if magic.match(head):
            return kind
    raise FileRefused(
        "it is of an unknown kind; known kinds are .safetensors with a card, StyleGAN2 .pkl, torch "
        ".pt or .pth, numpy .npy"
    )
