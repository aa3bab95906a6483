"""Masks and keypoints as a tab sends them, by the list of names that they were made by."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from studio.errors import Conflict, StudioError
from studio.names import Meanings, changed_text, keys_of_meanings


def mask_from_bytes(pixels: bytes, size: tuple[int, int]) -> NDArray[np.uint8]:
    """Class ids [H, W] from H * W bytes. Raises StudioError."""
    height, width = size
    if len(pixels) != height * width:
        raise StudioError(
            f"the mask has {len(pixels)} bytes; the image has {width}x{height} = "
            f"{height * width} pixels"
        )
    return np.frombuffer(pixels, np.uint8).reshape(height, width)


def check_ids(
    mask: NDArray[np.uint8], ignore_id: int, made_by: Sequence[str] | None, known: Meanings
) -> None:
    """Raises StudioError for ids without a class, and Conflict for ids that mean another class by
    now. `made_by`: the keys of the classes, by id, that the mask was made by; None: of now."""
    keys = keys_of_meanings(known)
    made_by = [names[-1] for names in keys] if made_by is None else made_by
    used = [i for i in np.unique(mask).tolist() if i != ignore_id]
    if used and used[-1] >= len(made_by):
        raise StudioError(
            f"the mask has class id {used[-1]}; there are {len(made_by)} classes, and "
            f"{ignore_id} marks ignored pixels"
        )
    if not all(i < len(keys) and made_by[i] in keys[i] for i in used):
        raise Conflict(changed_text("classes", [names[-1] for names in known], "was painted"))


def points_of_now(
    points: NDArray[np.float32], names: Sequence[str], known: Meanings, size: tuple[int, int]
) -> NDArray[np.float32]:
    """Keypoints [K, 3] that were made by a list of names, as rows of the list of now.

    Raises StudioError, and Conflict for a visible point that means another one by now.
    """
    height, width = size
    if points.shape != (len(names), 3):
        raise StudioError(f"{len(points)} keypoints are given; there are {len(names)}")
    shown = points[points[:, 2] > 0]
    inside = (shown[:, :2] >= 0) & (shown[:, :2] <= [width, height])
    if not (np.isfinite(points).all() and inside.all() and np.isin(points[:, 2], (0, 1)).all()):
        raise StudioError(f"keypoints must lie within {width}x{height}, with visible 0 or 1")
    visible = np.flatnonzero(points[:, 2]).tolist()
    if not all(k < len(known) and names[k] in known[k] for k in visible):
        raise Conflict(changed_text("keypoints", [had[-1] for had in known], "was painted"))
    found = np.zeros((len(known), 3), np.float32)
    found[: len(points)] = points[: len(known)]
    return found


def check_skeleton(skeleton: Sequence[tuple[int, int]], count: int) -> None:
    """Raises StudioError for a line that does not join two of `count` keypoints."""
    for pair in skeleton:
        if not all(0 <= end < count for end in pair) or pair[0] == pair[1]:
            raise StudioError(f"the skeleton joins {pair}; it takes two of {count} points")
