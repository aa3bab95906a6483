"""A bundle's ONNX graph as verified bytes that name no other file.

ONNX can keep tensors in files beside the graph ("external data"). A runtime that is given a path
opens those by name, and nobody would have compared them with the manifest. So runtimes are given
bytes, into which the tensors were copied from files that the manifest lists; others are refused,
and so is a node EPContext, which may name a compiled part of the graph.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from bundle.errors import FileError
from bundle.open import Bundle
from engines.errors import EngineOpenError

# The messages of onnx.proto that can hold a tensor or a node, as far as the way to those:
# message -> field number -> message of that field.
_INNER: dict[str, dict[int, str]] = {
    "Model": {7: "Graph", 20: "Training", 25: "Function"},
    "Training": {1: "Graph", 2: "Graph"},
    "Graph": {1: "Node", 5: "Tensor", 15: "SparseTensor"},
    "Function": {7: "Node", 11: "Attribute"},
    "Node": {5: "Attribute"},
    "Attribute": {5: "Tensor", 6: "Graph", 10: "Tensor", 11: "Graph", 22: "SparseTensor",
                  23: "SparseTensor"},
    "SparseTensor": {1: "Tensor", 2: "Tensor"},
    "Tensor": {},
}  # fmt: skip
_OP_TYPE = 4  # of Node
_RAW_DATA, _EXTERNAL_DATA, _DATA_LOCATION = 9, 13, 14  # of Tensor
_KEY, _VALUE = 1, 2  # of an entry of external_data
MAX_GRAPH_BYTES = 2 << 30  # limit of ONNX's format
_MAX_DEPTH = 64  # of messages in messages
_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5  # wire types of protobuf

# Name of a file beside the graph, offset, length (None: to the end) -> bytes.
ReadPart = Callable[[str, int, int | None], memoryview]


@dataclass(frozen=True, eq=False)
class OnnxGraph:
    """The content of an ONNX file."""

    path: Path  # for messages: the file there may have changed
    content: bytes


def graph_from_bundle(bundle: Bundle, name: str, max_bytes: int = MAX_GRAPH_BYTES) -> OnnxGraph:
    """A graph that the manifest lists, with all its data. Raises FileError, EngineOpenError."""
    path, content = bundle.file(name), bundle.read(name)
    kept: dict[str, bytes] = {}  # files beside the graph
    taken = len(content)

    def read(beside: str, offset: int, length: int | None) -> memoryview:
        nonlocal taken
        if beside not in kept:
            kept[beside] = bundle.read(beside)
        data = memoryview(kept[beside])
        length = len(data) - offset if length is None else length
        if not (offset >= 0 and 0 <= length <= len(data) - offset):
            raise ValueError(f"it needs bytes {offset} to {offset + length} of {beside}")
        taken += length
        if taken > max_bytes:  # many tensors may be the same bytes of a file
            raise ValueError(f"with its tensors it has over {max_bytes} bytes")
        return data[offset : offset + length]

    try:
        if content[4:8] == b"ORTM":  # ONNX Runtime would recognize it, whatever else it is
            raise ValueError("it has ONNX Runtime's own format, not ONNX")
        return OnnxGraph(path, bytes(_whole(memoryview(content), "Model", read, 0)))
    except (ValueError, FileError) as error:
        raise EngineOpenError(
            f"{path} cannot be loaded: {error}; export the bundle again"
        ) from error


def _whole(data: memoryview, message: str, read: ReadPart, depth: int) -> memoryview | bytes:
    """The message with tensors in place of the names of files; the same object without such.

    Raises ValueError for bytes that are no such message, FileError for a file that is not listed.
    """
    if depth > _MAX_DEPTH:
        raise ValueError(f"its messages are nested over {_MAX_DEPTH} deep")
    inner, parts, changed = _INNER[message], list[memoryview | bytes](), False
    entries: list[memoryview] = []  # of external_data
    external = False
    for number, value, field in _fields(data):
        if message == "Tensor" and number in (_EXTERNAL_DATA, _DATA_LOCATION):
            changed = True
            external = external or value != 0  # 0 is the default: data in the graph
            if not isinstance(value, int):
                entries.append(value)
        elif number in inner and not isinstance(value, int):
            new = _whole(value, inner[number], read, depth + 1)
            changed = changed or new is not value
            parts.append(field if new is value else _field(number, new))
        else:
            is_type = message == "Node" and number == _OP_TYPE
            if is_type and not isinstance(value, int) and bytes(value) == b"EPContext":
                raise ValueError("it has a node EPContext, whose code may be in any file")
            parts.append(field)
    if external:
        parts.append(_field(_RAW_DATA, _external(entries, read)))
    return b"".join(parts) if changed else data


def _external(entries: list[memoryview], read: ReadPart) -> memoryview:
    """The bytes that entries like location = weights.bin, offset = 4096, length = 64 name."""
    names: dict[bytes, str] = {}
    for entry in entries:
        pair = {number: bytes(v) for number, v, _ in _fields(entry) if not isinstance(v, int)}
        names[pair.get(_KEY, b"")] = pair.get(_VALUE, b"").decode()
    length = names.get(b"length")
    return read(
        names.get(b"location", ""),
        int(names.get(b"offset", "0")),
        None if length is None else int(length),
    )


def _fields(data: memoryview) -> Iterator[tuple[int, int | memoryview, memoryview]]:
    """Number, value and all bytes of each field of a protobuf message. Raises ValueError where
    the data is none."""
    at, end = 0, len(data)
    while at < end:
        begin = at
        key, at = _varint(data, at)
        if key >> 32:  # some parsers drop the upper bits, and would find another field
            raise ValueError("the number of a field has over 32 bits")
        number, wire = key >> 3, key & 7
        value: int | memoryview
        if wire == _VARINT:
            value, at = _varint(data, at)
        elif wire in (_BYTES, _FIXED64, _FIXED32):
            size = 8 if wire == _FIXED64 else 4
            if wire == _BYTES:
                size, at = _varint(data, at)
            if size > end - at:
                raise ValueError(f"a field of {size} bytes begins {end - at} bytes before the end")
            value, at = data[at : at + size], at + size
        else:
            raise ValueError(f"a field has wire type {wire}, so it is no ONNX graph")
        yield number, value, data[begin:at]


def _varint(data: memoryview, at: int) -> tuple[int, int]:
    value = 0
    for shift in range(0, 70, 7):
        if at == len(data):
            raise ValueError("it ends within a number")
        byte = data[at]
        at += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, at
    raise ValueError("a number has over 10 bytes")


def _field(number: int, value: memoryview | bytes) -> bytes:
    """A field of wire type _BYTES."""
    return _bytes_of(number << 3 | _BYTES) + _bytes_of(len(value)) + value


def _bytes_of(number: int) -> bytes:
    """The number as a varint."""
    low = bytearray()
    while number >= 0x80:
        low.append(number & 0x7F | 0x80)
        number >>= 7
    return bytes([*low, number])
