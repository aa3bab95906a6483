"""Depth as a picture, to look at: of the set's folder depth/, or of an ensemble's depth head.

Near is dark, far is light, between the nearest and the farthest pixel; unknown pixels are gray. The
studio neither changes depth nor learns it; `training interpreter`, which the export runs, does.
"""

import io
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from labelmint.panels import panel_from_depth
from studio.errors import NotFound
from studio.project import Project
from training.labels.depth import depth_file_of_folder, depths_from_folder
from training.labels.labelled_set import LabelPaths, label_paths
from training.labels.scaling import sizes_by_stem

SUFFIXES = (".png", ".npy")
UNKNOWN = (128, 128, 128)


def picture_from_depth(depth: NDArray[np.float32]) -> Image.Image:
    """RGB picture of depth [H, W]; NaN: unknown."""
    known = depth[np.isfinite(depth)]
    size = (depth.shape[0], depth.shape[1])
    if not known.size:
        return Image.new("RGB", size[::-1], UNKNOWN)
    low, high = float(known.min()), float(known.max())
    return panel_from_depth(depth, low, high if high > low else low + 1, size)


def stems_with_depth(project: Project) -> frozenset[str]:
    """Images that have a file in the set's folder of depth."""
    folder = _folder(project)
    if folder is None or not folder.is_dir():
        return frozenset()
    return frozenset(path.stem for path in folder.iterdir() if path.suffix.lower() in SUFFIXES)


def picture_of_stem(project: Project, stem: str) -> bytes:
    """PNG of an image's depth. Raises NotFound, and LabelError for a file that is none."""
    project.row(stem)
    folder = _folder(project)
    if folder is None or stem not in stems_with_depth(project):
        raise NotFound(f"{stem} has no depth")
    sizes = {stem: sizes_by_stem(project.images)[stem]}
    depth = depths_from_folder(folder, sizes, depth_file_of_folder(folder))[stem]
    stream = io.BytesIO()
    picture_from_depth(depth).save(stream, "png")
    return stream.getvalue()


def _folder(project: Project) -> Path | None:
    return label_paths(project.folder, LabelPaths()).depth
