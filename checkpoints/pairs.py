"""Weights and their card, two files that belong together. A process that is killed at any moment of
its writing leaves the old pair, the new one, or no weights, never those of another card.

The weights take their place last. So a command that finds none may begin, or go on from its state.
"""

import glob
from pathlib import Path

import msgspec
from safetensors import SafetensorError
from torch import Tensor

from bundle.files import read_regular_file, replaced_file
from bundle.records import one_line
from checkpoints.errors import WeightsError
from checkpoints.toml import bytes_of_text, card_path, toml_from_card
from checkpoints.weights import save_tensors


def write_pair(weights: Path, tensors: dict[str, Tensor], card: msgspec.Struct) -> None:
    """Writes tensors by name and their card, and removes what killed writers of them have left.

    An error, such as a full disk, leaves the old pair. Raises CardError, WeightsError.
    """
    path = card_path(weights)
    text = bytes_of_text(path, toml_from_card(card))
    try:
        with replaced_file(weights) as partial, replaced_file(path) as described:
            save_tensors(partial, tensors)
            described.write_bytes(text)
            if not _holds(path, text):
                weights.unlink(missing_ok=True)
    except (OSError, SafetensorError) as error:  # no such folder, or the disk is full
        raise WeightsError(f"{weights} cannot be written: {one_line(error)}") from error
    for name in (weights.name, path.name):
        for left in weights.parent.glob(f".{glob.escape(name)}.????????"):
            left.unlink(missing_ok=True)


def _holds(path: Path, text: bytes) -> bool:
    """Whether the file is there with this content."""
    try:
        return read_regular_file(path, len(text)) == text
    except OSError:
        return False
