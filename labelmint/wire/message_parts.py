"""How many parts a serialized message has, counted before it is parsed.

An empty part takes two bytes in a message, and up to eighty in memory once it is parsed, which
also blocks the thread: 60 MiB of them took 2.5 GiB and seconds. Enters: bytes of a peer. Leaves: an
error for a message with more parts than any honest one.
"""

from __future__ import annotations

from typing import Any

from google.protobuf.descriptor import FieldDescriptor

from labelmint.errors import MalformedMessage

MAX_PARTS = 20_000
MAX_PACKED_BYTES = 8 << 20  # of packed integers, which take up to eight times as much
MAX_TEXT_BYTES = 8 << 20  # of texts, which are copied several times
_FIXED_SIZE = {
    FieldDescriptor.TYPE_DOUBLE, FieldDescriptor.TYPE_FLOAT,
    FieldDescriptor.TYPE_FIXED64, FieldDescriptor.TYPE_SFIXED64,
    FieldDescriptor.TYPE_FIXED32, FieldDescriptor.TYPE_SFIXED32,
    FieldDescriptor.TYPE_STRING, FieldDescriptor.TYPE_BYTES,
}  # fmt: skip
_VARINT, _FIXED64, _LENGTH, _FIXED32 = 0, 1, 2, 5  # wire types; groups are refused
_FIXED_BYTES = {_FIXED64: 8, _FIXED32: 4}


def check_parts(
    data: bytes,
    descriptor: Any,
    max_parts: int = MAX_PARTS,
    max_packed_bytes: int = MAX_PACKED_BYTES,
    max_text_bytes: int = MAX_TEXT_BYTES,
) -> None:
    """Raises MalformedMessage for more than max_parts fields, those of inner messages included.

    A field of packed numbers counts as one; their bytes and those of texts have their own limits.

    Args:
        data: the serialized message.
        descriptor: DESCRIPTOR of the message's class.
        max_parts, max_packed_bytes, max_text_bytes: the limits.
    """
    parts = packed_bytes = text_bytes = 0
    open_messages = [(0, len(data), descriptor)]  # each from here to its end
    while open_messages:
        position, end, kind = open_messages.pop()
        while position < end:
            parts += 1
            if parts > max_parts:
                raise MalformedMessage(
                    f"the message has over {max_parts} parts, the limit; send fewer, larger ones"
                )
            tag, position = _varint(data, position)
            wire_type = tag & 7
            if wire_type == _VARINT:
                _, position = _varint(data, position)
            elif wire_type == _LENGTH:
                size, position = _varint(data, position)
                field = kind.fields_by_number.get(tag >> 3)
                if field is not None and field.message_type is not None:
                    open_messages.append((position, position + size, field.message_type))
                elif field is not None and field.type == FieldDescriptor.TYPE_STRING:
                    text_bytes += size
                    if text_bytes > max_text_bytes:
                        raise MalformedMessage(
                            f"{field.name} makes {text_bytes} bytes of text; the limit is "
                            f"{max_text_bytes}, send shorter names"
                        )
                elif field is not None and field.type not in _FIXED_SIZE:
                    packed_bytes += size
                    if packed_bytes > max_packed_bytes:
                        raise MalformedMessage(
                            f"{field.name} makes {packed_bytes} bytes of packed numbers; the limit "
                            f"is {max_packed_bytes}, send fewer numbers"
                        )
                position += size
            elif wire_type in _FIXED_BYTES:
                position += _FIXED_BYTES[wire_type]
            else:
                raise MalformedMessage(f"the message has a part of wire type {wire_type}")
        if position != end or end > len(data):
            raise MalformedMessage("the message is cut off, or its parts overlap")


def _varint(data: bytes, position: int) -> tuple[int, int]:
    """A number of up to 64 bits, and the position behind it."""
    value = 0
    for shift in range(0, 70, 7):
        if position >= len(data):
            break
        byte = data[position]
        position += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, position
    raise MalformedMessage("the message is cut off, or has a number of over 64 bits")
