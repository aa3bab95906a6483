"""Files that other projects published, to plain data and tensors; nothing in them is ever run.

In: the path of a StyleGAN2-ADA .pkl, a StyleGAN2 TensorFlow .pkl, a torch .pt or .pth, or a .npy.
Out: names, plain values and tensors; checkpoints' families make networks of them. The content
decides what a file is, not its suffix. Each file is read once, from one handle.
"""

import os
import re
import stat
from dataclasses import dataclass
from pathlib import Path

from torch import Tensor

from checkpoints.allowance import Allowance, Refused
from checkpoints.errors import ForeignFileError
from checkpoints.networks import (
    PickledNetwork,
    TensorFlowNetwork,
    is_tensorflow,
    pickled_network_from_record,
    tensorflow_network_from_record,
)
from checkpoints.pickles import pickle_from_bytes
from checkpoints.tensors import tensor_from_array
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
HEAD_BYTES = 256  # enough to tell what a file is
KINDS = {  # in this order: the legacy magic is a pickle too
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


@dataclass(frozen=True)
class TorchFile:
    """Content of a file that torch.save wrote."""

    content: object  # nested dicts, lists and tuples of plain data and tensors


ForeignFile = PickledNetwork | TensorFlowNetwork | TorchFile


def read_foreign(path: Path) -> ForeignFile:
    """The networks or the content of a file. Raises ForeignFileError, one line naming the file.

    Of a StyleGAN2-ADA or TensorFlow pickle it is the generator's moving average, G_ema or Gs.
    Memory stays within the file, its tensors, and what checkpoints.allowance grants.
    """
    try:
        kind, data = _read(path)
        return _foreign_from_bytes(kind, data, Allowance(len(data)))
    except Refused as error:
        raise ForeignFileError(f"{path}: {error}") from error


def read_array(path: Path) -> Tensor:
    """The array of a .npy file, of its own type. Raises ForeignFileError."""
    try:
        kind, data = _read(path)
        if kind != "npy":
            raise Refused("it is no numpy array (.npy)")
        return _tensor_from_npy(data, Allowance(len(data)))
    except Refused as error:
        raise ForeignFileError(f"{path}: {error}") from error


def _foreign_from_bytes(kind: str, data: memoryview, allowance: Allowance) -> ForeignFile:
    if kind in ("zip", "legacy"):
        read = archive_from_zip if kind == "zip" else archive_from_legacy
        archive = read(data, allowance)
        return TorchFile(Values(allowance, archive.storage).value(archive.record))
    if kind == "pickle":
        record = pickle_from_bytes(data, 0, allowance).record
        if is_tensorflow(record):
            return tensorflow_network_from_record(record, Values(allowance))
        return pickled_network_from_record(record, Values(allowance))
    if kind == "npy":
        raise Refused("it is a numpy array (.npy), which is no network; a mean latent may be one")
    raise Refused("it is a safetensors file: labelmint reads its own, with their card beside them")


def _tensor_from_npy(data: memoryview, allowance: Allowance) -> Tensor:
    length_bytes = 2 if data[6] == 1 else 4  # by the version of the format
    start = 8 + length_bytes
    end = start + int.from_bytes(data[8:start], "little")
    header = ARRAY_HEADER.fullmatch(bytes(data[start : min(end, start + HEAD_BYTES)]))
    if header is None:
        raise Refused("its .npy header is broken, or of an array that is not of plain numbers")
    shape = [int(extent) for extent in header[3].split(b",") if extent.strip()]
    fortran = header[2] == b"True"
    return tensor_from_array(data[end:], header[1].decode(), shape, fortran, allowance)


def _read(path: Path) -> tuple[str, memoryview]:
    """What a regular file is, and all its bytes: read once, and no further than needed."""
    try:
        with open(path, "rb", buffering=0, opener=_open) as stream:
            status = os.fstat(stream.fileno())
            if not stat.S_ISREG(status.st_mode):
                raise Refused("it is no regular file")
            if status.st_size > MAX_FILE_BYTES:
                raise Refused(f"it has {status.st_size} bytes; {MAX_FILE_BYTES} are read")
            head = stream.read(HEAD_BYTES)
            kind = _kind_from_head(head[: status.st_size])
            data = memoryview(bytearray(status.st_size))
            filled = min(len(head), len(data))
            data[:filled] = head[:filled]
            while count := stream.readinto(data[filled:]):
                filled += count
            if filled < len(data):
                raise Refused(f"it shrank to {filled} bytes while it was read")
            return kind, data.toreadonly()
    except OSError as error:
        raise Refused(f"it cannot be read ({error.strerror})") from error


def _open(path: str, flags: int) -> int:
    # Else a pipe under this name would keep us waiting before it can be refused.
    return os.open(path, flags | os.O_NONBLOCK)


def _kind_from_head(head: bytes) -> str:
    for kind, magic in KINDS.items():
        if magic.match(head):
            return kind
    raise Refused(
        "it is no file of a known kind: .safetensors with its card, StyleGAN2 .pkl, torch .pt or "
        ".pth, numpy .npy"
    )
