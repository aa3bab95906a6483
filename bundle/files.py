"""Files on disk: written whole or not at all, and their SHA-256."""

import hashlib
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def replaced_file(path: Path) -> Iterator[Path]:
    """Temporary file beside `path` that replaces it when the block ends without an error.

    Readers see the old content or the new content, never a part of it. The content is synced to
    disk before the rename, and the file is readable by all (mode 0644). Raises OSError.
    """
    handle, name = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
    os.close(handle)
    partial = Path(name)
    try:
        yield partial
        with partial.open("rb") as stream:
            os.fchmod(stream.fileno(), 0o644)  # mkstemp's 0600 is for its owner alone
            os.fsync(stream.fileno())  # else a power loss may leave an empty file
        os.replace(partial, path)
    except BaseException:
        partial.unlink(missing_ok=True)
        raise


def replace_file(path: Path, data: bytes) -> None:
    """Writes or replaces a file in one step, see `replaced_file`. Raises OSError."""
    with replaced_file(path) as partial:
        partial.write_bytes(data)


def sync_folder(folder: Path) -> None:
    """Syncs a folder, so that new and renamed files in it survive a power loss. Raises OSError."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def sha256_of_file(path: Path) -> str:
    """SHA-256 of a file, 64 lower-case hexadecimal digits. Raises OSError."""
    digest = hashlib.sha256()
    with path.open("rb") as stream:
        while chunk := stream.read(1 << 20):
            digest.update(chunk)
    return digest.hexdigest()
