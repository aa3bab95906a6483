"""New labels in a temporary folder -> a label folder, in place of the labels that it has.

Whoever is killed meanwhile loses no label: masks/, classes.toml and keypoints.json are each the old
one or the new one, whole, and an old one is in its place or in the hidden folder beside.
"""

import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from checkpoints import exchange_folders, made_folder, signals_held
from training.labels.label_folder import CLASSES, KEYPOINTS, MASKS

NAMES = (MASKS, CLASSES, KEYPOINTS)


def existing_labels(out: Path) -> list[Path]:
    """The paths that `replaced_labels` would replace."""
    return [out / name for name in NAMES if os.path.lexists(out / name)]


@contextmanager
def replaced_labels(out: Path) -> Iterator[Path]:
    """A folder within `out` to write labels to; they take their places when the block ends without
    an error, and old ones of a kind that is not written go. Raises OSError."""
    with made_folder(out):
        made = Path(tempfile.mkdtemp(prefix=".labels-", dir=out))
        try:
            made.chmod(0o755)
            yield made
            with signals_held() as held:  # the files belong together
                _swap_all(made, out)
                held.end(f"{out} has the new labels")
        finally:
            shutil.rmtree(made, ignore_errors=True)


def _swap_all(made: Path, out: Path) -> None:
    swapped: list[str] = []
    try:
        for name in NAMES:
            _swap(made / name, out / name)
            swapped.append(name)
    except OSError:
        for name in swapped:
            with suppress(OSError):
                _swap(made / name, out / name)
        raise


def _swap(first: Path, second: Path) -> None:
    """Gives what is called `first` the name `second`, and the other way round."""
    if os.path.lexists(first) and os.path.lexists(second):
        exchange_folders(first, second)
    elif os.path.lexists(first):
        first.rename(second)
    elif os.path.lexists(second):
        second.rename(first)
