"""LabelMe 5: one JSON file per image, with a mask of each class, and points named as keypoints."""

import base64
import io
import json
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from training.labels.label_folder import LabelFolder


def write_labelme(folder: Path, labels: LabelFolder) -> None:
    """Writes STEM.json of each image. Keypoints that are not visible are left out. Raises
    OSError."""
    folder.mkdir(parents=True, exist_ok=True)
    for stem in labels.stems:
        sizes = labels.pictures.sizes[stem]
        shapes = [_mask(name, region) for name, region in labels.regions(stem)]
        points = labels.points.get(stem, np.zeros((0, 3)))
        for name, (x, y, visible) in zip(labels.keypoint_names, points, strict=False):
            if visible > 0:
                shapes.append(_shape(name, "point", [[float(x), float(y)]], None))
        content: dict[str, object] = {
            "version": "5.5.0",
            "flags": {},
            "shapes": shapes,
            "imagePath": labels.pictures.files[stem],
            "imageData": None,
            "imageHeight": sizes.height,
            "imageWidth": sizes.width,
        }
        (folder / f"{stem}.json").write_text(json.dumps(content, indent=1), "utf-8")


def _mask(name: str, region: NDArray[np.bool_]) -> dict[str, Any]:
    rows, columns = np.flatnonzero(region.any(1)), np.flatnonzero(region.any(0))
    top, bottom, left, right = (int(i) for i in (rows[0], rows[-1], columns[0], columns[-1]))
    with io.BytesIO() as stream:
        part = region[top : bottom + 1, left : right + 1].astype(np.uint8)
        Image.fromarray(part * 255).save(stream, "PNG")
        text = base64.b64encode(stream.getvalue()).decode()
    return _shape(name, "mask", [[left, top], [right, bottom]], text)


def _shape(name: str, kind: str, points: list[list[float]], mask: str | None) -> dict[str, Any]:
    return {
        "label": name,
        "points": points,
        "group_id": None,
        "description": "",
        "shape_type": kind,
        "flags": {},
        "mask": mask,
    }
