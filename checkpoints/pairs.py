"""Weights and their card, two files that belong together. A process that is killed at any moment of
its writing leaves the old pair, the new one, or no weights, never those of another card.

The weights take their place last. So a command that finds none may begin, or go on from its state.
Processes that write pairs into one folder wait for each other.
"""

import errno
import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import msgspec
from safetensors import SafetensorError
from torch import Tensor

from bundle.files import read_regular_file, remove_left_files, replaced_file, sync_file
from bundle.records import one_line
from checkpoints.errors import WeightsError
from checkpoints.toml import bytes_of_text, card_path, toml_from_card
from checkpoints.weights import save_tensors


def write_pair(weights: Path, tensors: dict[str, Tensor], card: msgspec.Struct) -> None:
    """Writes tensors by name and their card, and removes what killed writers of them have left.

    An error, such as a full disk, leaves the old pair. Raises CardError, WeightsError.
    """
    path = card_path(weights)
    if path == weights:
        raise WeightsError(f"{weights} is the name of a card; name weights .safetensors")
    text = bytes_of_text(path, toml_from_card(card))
    try:
        with _locked_folder(weights.parent) as alone:
            with replaced_file(weights) as partial, replaced_file(path) as described:
                save_tensors(partial, tensors)
                described.write_bytes(text)
                for written in (partial, described):  # some disks tell only now that they are full
                    sync_file(written)
                if path.is_dir():
                    raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(path))
                if not _holds(path, text):
                    weights.unlink(missing_ok=True)
            if alone:  # else a file may be another writer's
                remove_left_files(weights)
                remove_left_files(path)
    except (OSError, SafetensorError) as error:  # no such folder, or the disk is full
        raise WeightsError(f"{weights} cannot be written: {one_line(error)}") from error


@contextmanager
def _locked_folder(folder: Path) -> Iterator[bool]:
    """Waits until no other process writes a pair here; False where folders cannot be locked.

    Raises OSError.
    """
    descriptor = os.open(folder, os.O_RDONLY | os.O_CLOEXEC)
    try:
        locked = True
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX)
        except OSError:  # of some network file systems
            locked = False
        yield locked
    finally:
        os.close(descriptor)


def _holds(path: Path, text: bytes) -> bool:
    """Whether the file is there with this content."""
    try:
        return read_regular_file(path, len(text)) == text
    except OSError:
        return False
