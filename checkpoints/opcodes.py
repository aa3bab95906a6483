"""Opcodes of a pickle from its bytes.

Every argument is a slice of the bytes, so a length field in the file allocates nothing. The table
of opcodes is the standard library's pickletools, which has the length of each argument.
"""

import pickletools
from collections.abc import Iterator

from checkpoints.read_budget import FileRefused

MAX_LINE_BYTES = 1024  # length of an argument that ends at a newline: module or name of a global
OPCODES = {opcode.code: opcode for opcode in pickletools.opcodes}
LENGTH_BYTES = {
    pickletools.TAKEN_FROM_ARGUMENT1: 1,
    pickletools.TAKEN_FROM_ARGUMENT4: 4,
    pickletools.TAKEN_FROM_ARGUMENT4U: 4,
    pickletools.TAKEN_FROM_ARGUMENT8U: 8,
}


def opcodes_from_bytes(
    data: memoryview, position: int
) -> Iterator[tuple[str, list[memoryview], int]]:
    """Name, arguments and end position of each opcode, from byte `position` to STOP.

    Raises FileRefused for an unknown opcode and for arguments that end beyond the data.
    """
    while True:
        opcode = OPCODES.get(chr(_slice(data, position, 1)[0]))
        if opcode is None:
            raise FileRefused(f"its pickle has no opcode {data[position]:#04x} (byte {position})")
        position += 1
        size = 0 if opcode.arg is None else opcode.arg.n
        arguments = []
        if size == pickletools.UP_TO_NEWLINE:
            for _ in range(2 if opcode.name in ("GLOBAL", "INST") else 1):
                arguments.append(_line(data, position))
                position += len(arguments[-1]) + 1
        else:
            if size < 0:
                prefix = _slice(data, position, LENGTH_BYTES[size])
                position += len(prefix)
                size = int.from_bytes(prefix, "little")
            arguments.append(_slice(data, position, size))
            position += size
        yield opcode.name, arguments, position
        if opcode.name == "STOP":
            return


def _slice(data: memoryview, start: int, size: int) -> memoryview:
    if size > len(data) - start:
        raise FileRefused(
            f"its pickle asks for {size} bytes at byte {start} of {len(data)}; it is cut short, so "
            "download it again, or lies about a length"
        )
    return data[start : start + size]


def _line(data: memoryview, start: int) -> memoryview:
    length = bytes(data[start : start + MAX_LINE_BYTES]).find(b"\n")
    if length < 0:
        raise FileRefused(
            f"its pickle has no end of line within {MAX_LINE_BYTES} bytes of byte {start}"
        )
    return data[start : start + length]
