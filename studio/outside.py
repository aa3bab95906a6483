"""Label files that other programs write while the studio has their project open."""

from collections.abc import Container
from pathlib import Path

from training.errors import LabelError
from training.labels.label_folder import MASKS
from training.labels.labelled_set import LabelPaths, label_paths

State = tuple[int, int, int]
OLD: State = (0, 0, 0)  # of no file that is there now


def state_of_file(path: Path) -> State | None:
    """What changes when a file is replaced or written; None without a file."""
    try:
        status = path.stat()
    except FileNotFoundError:
        return None
    return status.st_ino, status.st_mtime_ns, status.st_size


def states_of_masks(folder: Path, stems: Container[str]) -> dict[str, State]:
    """The states of the masks of a project, by stem of an image."""
    found = {}
    for path in (folder / MASKS).glob("*.png"):
        if path.stem in stems and (state := state_of_file(path)) is not None:
            found[path.stem] = state
    return found


def refuse_other_masks(folder: Path) -> None:
    """Masks of another format would lie beside those painted here, and training refuses both.
    Raises LabelError."""
    path = label_paths(folder, LabelPaths()).masks
    if path is not None and path.name != MASKS:
        raise LabelError(
            f"{path} has labels of another tool; read them into the project first: "
            f"python -m training labels import {path} --from "
            f"{'coco' if path.suffix == '.json' else 'labelme'} --images {folder} --out {folder}, "
            f"and move {path.name} away"
        )
