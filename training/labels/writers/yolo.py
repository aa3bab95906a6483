"""YOLO: segment/ with polygons of each class, pose/ with keypoints; each with its data.yaml.

A polygon follows the edges of pixels. A class in several parts has a line for each; a hole is
joined to its outline by a cut of no width, as the format has no holes.
"""

from pathlib import Path

import numpy as np
import yaml

from labelmint.datasets.outlines import outlines_from_mask
from training.labels.label_folder import LabelFolder

TEXTS = "labels/train"


def write_yolo(folder: Path, labels: LabelFolder) -> None:
    """Writes labels and data.yaml; copy or link the images to images/train. Raises OSError."""
    if labels.masks:
        _write_segments(folder / "segment", labels)
    if labels.points:
        _write_poses(folder / "pose", labels)


def _write_segments(folder: Path, labels: LabelFolder) -> None:
    (folder / TEXTS).mkdir(parents=True, exist_ok=True)
    names = [*(name for name, _ in labels.labels()), "__ignore__"]
    ignored = False
    for stem in labels.stems:
        if stem not in labels.masks:
            continue
        sizes = labels.pictures.sizes[stem]
        lines = []
        for name, region in labels.regions(stem):
            ignored |= name == "__ignore__"
            for outline in outlines_from_mask(region):
                places = outline / (sizes.width, sizes.height)
                lines.append(f"{names.index(name)} " + " ".join(f"{v:.8f}" for v in places.ravel()))
        (folder / TEXTS / f"{stem}.txt").write_text("\n".join(lines) + "\n" * bool(lines))
    data: dict[str, object] = {"names": dict(enumerate(names if ignored else names[:-1]))}
    _write_data(folder, data)


def _write_poses(folder: Path, labels: LabelFolder) -> None:
    (folder / TEXTS).mkdir(parents=True, exist_ok=True)
    for stem, points in labels.points.items():
        sizes = labels.pictures.sizes[stem]
        size = np.array([sizes.width, sizes.height])
        seen = points[points[:, 2] > 0, :2]
        low, high = (seen.min(0), seen.max(0)) if len(seen) else (np.zeros(2), np.zeros(2))
        values = [*((low + high) / 2 / size), *((high - low) / size)]
        for x, y, visible in points:
            values += [x / size[0], y / size[1], 2] if visible > 0 else [0, 0, 0]
        text = " ".join(f"{value:.6f}" for value in values)
        (folder / TEXTS / f"{stem}.txt").write_text(f"0 {text}\n")
    _write_data(
        folder,
        {
            "names": {0: "object"},
            "kpt_shape": [len(labels.keypoint_names), 3],
            "kpt_names": {0: list(labels.keypoint_names)},
        },
    )


def _write_data(folder: Path, data: dict[str, object]) -> None:
    # Without `path`, Ultralytics starts at the folder of data.yaml; "." would be its own.
    places = {"train": "images/train", "val": "images/train"}
    text = yaml.safe_dump({**places, **data}, sort_keys=False, allow_unicode=True)
    (folder / "data.yaml").write_text(text, "utf-8")
