"""Rules of one entry of a manifest that lists a file: its name, size and SHA-256."""

import re

from bundle.manifest import MANIFEST, FileEntry

MAX_FILE_BYTES = 2 << 30  # a graph cannot have more, by its format
_FILE_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.\-]*\Z")  # no folders, no hidden files
_SHA256 = re.compile(r"[0-9a-f]{64}\Z")


def is_file_name(name: str) -> bool:
    """Whether a file of a bundle can have this name: no folder, not hidden, not the manifest's."""
    return bool(_FILE_NAME.match(name)) and name != MANIFEST


def entry_problem(where: str, entry: FileEntry) -> str | None:
    """The first broken rule of an entry, as "field is value; rule"; `where` is its field."""
    if problem := hash_problem(f"{where}.sha256", entry.sha256):
        return problem
    if not 0 <= entry.size <= MAX_FILE_BYTES:
        return f"{where}.size is {entry.size}; it must not be negative, nor over {MAX_FILE_BYTES}"
    return None


def seed_problem(where: str, seed: int) -> str | None:
    """What is wrong with a seed, a field named `where`; a request can have no larger one."""
    return None if seed < 1 << 64 else f"{where} has {seed.bit_length()} bits; a seed has 64"


def hash_problem(where: str, text: str) -> str | None:
    """What is wrong with a SHA-256, a field named `where`."""
    if _SHA256.match(text):
        return None
    return f"{where} is {text[:80]!r}; it must be 64 hexadecimal digits"
