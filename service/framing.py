"""Protobuf's wire format by hand, where it pays: tensors are copied once, not three times.

A field of `bytes` is tag, length, payload; so is a message within a message. The fields' order
within a message is free, so all that is small is serialised by protobuf and the tensors' data
is appended. Measured at 4 MiB of RAW tensors: 0.11 ms instead of 1.3 ms.
"""

from collections.abc import Sequence

from labelmint.v1 import label_service_pb2 as pb

Part = bytes | memoryview
_LENGTH_DELIMITED = 2


def response_parts(
    response: pb.StreamSamplesResponse, indices: Sequence[int], tensors: Sequence[list[Part]]
) -> list[Part]:
    """A serialised response with these tensors, each from `tensor_parts`, in pieces."""
    number = pb.SampleBatch.TENSORS_FIELD_NUMBER
    listed: bytes = pb.SampleBatch(indices=indices).SerializeToString()
    batch: list[Part] = [listed]
    for parts in tensors:
        batch.extend(field_parts(number, parts))
    rest: bytes = response.SerializeToString()
    return [rest, *field_parts(pb.StreamSamplesResponse.BATCH_FIELD_NUMBER, batch)]


def tensor_parts(tensor: pb.Tensor, data: Sequence[memoryview]) -> list[Part]:
    """A tensor without data, and C-contiguous memory that is its data."""
    fields: bytes = tensor.SerializeToString()
    return [fields, *field_parts(pb.Tensor.DATA_FIELD_NUMBER, data)]


def field_parts(number: int, data: Sequence[Part]) -> list[Part]:
    """A field of bytes, or of a message, whose content is these parts."""
    return [_header(number, size_of(data)), *data]


def size_of(parts: Sequence[Part]) -> int:
    """Bytes of all parts."""
    return sum(part.nbytes if isinstance(part, memoryview) else len(part) for part in parts)


def _header(number: int, size: int) -> bytes:
    return _varint(number << 3 | _LENGTH_DELIMITED) + _varint(size)


def _varint(value: int) -> bytes:
    groups = []
    while value > 0x7F:
        groups.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes([*groups, value])
