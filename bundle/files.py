"""Files on disk: regular ones alone are read; written whole or not at all; and their SHA-256."""

import ctypes
import errno
import glob
import hashlib
import os
import stat
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from io import BufferedRandom
from pathlib import Path
from typing import BinaryIO

CHUNK_BYTES = 1 << 20
LEFT = ".partial"  # ends the names of files that are being written
_AT_FDCWD, _RENAME_EXCHANGE = -100, 2  # of renameat2, which Python lacks


@contextmanager
def opened_regular_file(path: Path) -> Iterator[BinaryIO]:
    """A regular file, open for reading; links to one are followed.

    Raises OSError for anything else, such as a FIFO, on which a read may wait for ever, or a
    device, which may never end.
    """
    _refuse_irregular(path, os.stat(path))  # opening some devices has effects
    # Without O_NONBLOCK the open waits, if a FIFO takes the file's place just now.
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    with os.fdopen(descriptor, "rb") as stream:
        _refuse_irregular(path, os.fstat(descriptor))
        yield stream


def read_regular_file(path: Path, max_bytes: int) -> bytes:
    """At most the first `max_bytes` + 1 bytes of a regular file, so that a longer one is noticed.

    Raises OSError.
    """
    with opened_regular_file(path) as stream:
        return stream.read(max_bytes + 1)


def opened_to_append(path: Path) -> BufferedRandom:
    """A regular file, new or old, to read and to append to. Raises OSError for anything else, a
    link to one too."""
    return open(path, "a+b", opener=_regular_descriptor)


def _regular_descriptor(path: str, flags: int) -> int:
    descriptor = os.open(path, flags | os.O_NOFOLLOW | os.O_NONBLOCK, 0o666)
    try:
        _refuse_irregular(Path(path), os.fstat(descriptor))  # before Python seeks in it
    except OSError:
        os.close(descriptor)
        raise
    return descriptor


@contextmanager
def made_folder(folder: Path) -> Iterator[None]:
    """Makes a folder, with its parents, before the block. Those that it made are removed again if
    the block fails and leaves them empty, as a command does that refuses its options. Raises
    OSError.
    """
    made = [one for one in (folder, *folder.parents) if not one.exists()]
    folder.mkdir(parents=True, exist_ok=True)
    try:
        yield
    except BaseException:
        with suppress(OSError):  # of the first that is not empty
            for one in made:
                one.rmdir()
        raise


@contextmanager
def replaced_file(path: Path) -> Iterator[Path]:
    """Temporary file beside `path` that replaces it when the block ends without an error.

    Readers see the old content or the new content, never a part of it. The content is synced to
    disk before the rename, and the file is readable by all (mode 0644). Raises OSError.
    """
    handle, name = tempfile.mkstemp(LEFT, f".{path.name}.", path.parent)
    os.close(handle)
    partial = Path(name)
    try:
        yield partial
        partial.chmod(0o644)  # mkstemp's 0600 is for its owner alone
        sync_file(partial)  # else a power loss may leave an empty file
        os.replace(partial, path)
    except BaseException as error:
        partial.unlink(missing_ok=True)
        name_file(error, path)
        raise


def remove_left_files(path: Path) -> None:
    """Removes what killed writers of `path` have left beside it; no other may be writing it now."""
    for left in path.parent.glob(f".{glob.escape(path.name)}.????????{LEFT}"):
        with suppress(OSError):  # not a file, or not ours to remove
            left.unlink()


def name_file(error: BaseException, path: Path) -> None:
    """Adds the path to an OSError that names no file, such as that of a write to a full disk."""
    if isinstance(error, OSError) and error.filename is None:
        error.filename = str(path)


def replace_file(path: Path, data: bytes) -> None:
    """Writes or replaces a file in one step, see `replaced_file`. Raises OSError."""
    with replaced_file(path) as partial:
        partial.write_bytes(data)


def exchange_folders(folder: Path, out: Path) -> None:
    """Gives each folder the other's name, in one step where the system can."""
    renameat2 = getattr(ctypes.CDLL(None, use_errno=True), "renameat2", None)
    if renameat2 is not None:
        names = os.fsencode(folder), os.fsencode(out)
        if renameat2(_AT_FDCWD, names[0], _AT_FDCWD, names[1], _RENAME_EXCHANGE) == 0:
            return
        if ctypes.get_errno() not in (errno.ENOSYS, errno.EINVAL, errno.ENOTSUP):
            raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()), str(out))
    old = folder.with_name(folder.name + ".old")
    try:
        out.rename(old)
        folder.rename(out)
    except BaseException:
        if old.exists() and not out.exists():
            old.rename(out)
        raise
    old.rename(folder)


def sync_file(path: Path) -> None:
    """Syncs the content of a file to the disk. Raises OSError."""
    with path.open("rb") as stream:
        os.fsync(stream.fileno())


def sync_folder(folder: Path) -> None:
    """Syncs a folder, so that new and renamed files in it survive a power loss. Raises OSError."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def sha256_of_file(path: Path) -> str:
    """SHA-256 of a regular file, 64 lower-case hexadecimal digits. Raises OSError."""
    with opened_regular_file(path) as stream:
        return sha256_of_stream(stream)


def sha256_of_stream(stream: BinaryIO) -> str:
    """SHA-256 of the rest of a stream, 64 lower-case hexadecimal digits. Raises OSError."""
    digest = hashlib.sha256()
    while chunk := stream.read(CHUNK_BYTES):
        digest.update(chunk)
    return digest.hexdigest()


def _refuse_irregular(path: Path, status: os.stat_result) -> None:
    if not stat.S_ISREG(status.st_mode):
        raise OSError(errno.EINVAL, "not a regular file", str(path))
