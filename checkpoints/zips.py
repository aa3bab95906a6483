"""Entries of a zip archive as torch writes them, uncompressed, as slices of the file.

The standard library's zipfile builds its list of entries before anything can be checked, and
inflates entries. Layout: PKWARE APPNOTE, sections 4.3.7 to 4.3.16.
"""

import struct
import zlib

from checkpoints.read_budget import FileRefused, shown

MAX_ENTRIES = 1 << 16
DIRECTORY_END = struct.Struct("<4s4H2IH")
DIRECTORY_END_64 = struct.Struct("<4sQ2H2I4Q")
LOCATOR_64 = struct.Struct("<4sIQI")
DIRECTORY_ENTRY = struct.Struct("<4s6H3I5H2I")
LOCAL_HEADER = struct.Struct("<4s5H3I2H")
FULL_16, FULL_32 = 0xFFFF, 0xFFFFFFFF  # marks a value that is in the 64-bit record instead
EXTRA_64 = 1  # id of the extra field with 64-bit sizes


def entries_from_zip(data: memoryview) -> dict[str, memoryview]:
    """Entries by name, as slices of `data`; their CRC-32 is compared. Raises FileRefused."""
    count, position, end = _directory(data)
    if count > MAX_ENTRIES:
        raise FileRefused(f"its zip directory has {count} entries; at most {MAX_ENTRIES} are read")
    entries: dict[str, memoryview] = {}
    total = 0
    for _ in range(count):
        fields = _unpack(DIRECTORY_ENTRY, data[:end], position, b"PK\x01\x02")
        flags, method, crc, packed, size = fields[3], fields[4], *fields[7:10]
        name_end = position + DIRECTORY_ENTRY.size + fields[10]
        name = bytes(data[position + DIRECTORY_ENTRY.size : name_end]).decode("utf-8", "replace")
        extra = bytes(data[name_end : name_end + fields[11]])
        size, packed, header = _sizes_64(extra, [size, packed, fields[16]])
        position = name_end + fields[11] + fields[12]
        if method or flags & 1 or packed != size:
            raise FileRefused(
                f"its zip entry {shown(name)} is compressed; torch stores its entries; if this is "
                "an archive with the weights in it, unpack it and give them"
            )
        if name in entries:
            raise FileRefused(f"its zip directory names {shown(name)} twice")
        # Entries must not overlap: their sizes add up to at most the size of the file.
        total += size
        if total > len(data):
            raise FileRefused(f"its zip entries claim more bytes than the file's {len(data)}")
        entries[name] = _entry(data, header, size, name)
        if zlib.crc32(entries[name]) != crc:
            raise FileRefused(f"its zip entry {shown(name)} is damaged: its CRC-32 differs")
    return entries


def _directory(data: memoryview) -> tuple[int, int, int]:
    """Number of entries, start and end of the central directory."""
    at = len(data) - DIRECTORY_END.size
    fields = _unpack(DIRECTORY_END, data, at, b"PK\x05\x06")
    count, size, start, comment = fields[4:8]
    if comment:
        raise FileRefused("its zip directory is followed by a comment; torch writes none")
    if count == FULL_16 or FULL_32 in (size, start):
        locator = _unpack(LOCATOR_64, data, at - LOCATOR_64.size, b"PK\x06\x07")
        count, size, start = _unpack(DIRECTORY_END_64, data, locator[2], b"PK\x06\x06")[7:10]
    return count, start, start + size


def _sizes_64(extra: bytes, sizes: list[int]) -> list[int]:
    """Size, packed size and header position of an entry.

    Values equal to FULL_32 are replaced, in order, by the 64-bit values of the extra field.
    """
    position = 0
    while FULL_32 in sizes and position + 4 <= len(extra):
        kind, length = struct.unpack_from("<2H", extra, position)
        position += 4
        if kind == EXTRA_64:
            values = list(
                struct.unpack_from(f"<{min(length, len(extra) - position) // 8}Q", extra, position)
            )
            return [values.pop(0) if n == FULL_32 and values else n for n in sizes]
        position += length
    return sizes


def _entry(data: memoryview, header: int, size: int, name: str) -> memoryview:
    fields = _unpack(LOCAL_HEADER, data, header, b"PK\x03\x04")
    start = header + LOCAL_HEADER.size + fields[9] + fields[10]
    if start + size > len(data):
        raise FileRefused(f"its zip entry {shown(name)} ends beyond the file")
    return data[start : start + size]


def _unpack(layout: struct.Struct, data: memoryview, at: int, magic: bytes) -> tuple[int, ...]:
    """Fields of the record at byte `at`, which must lie within `data` and begin with `magic`."""
    if at < 0 or at + layout.size > len(data) or data[at : at + 4] != magic:
        raise FileRefused("its zip directory is cut short or damaged; download it again")
    return layout.unpack_from(data, at)
