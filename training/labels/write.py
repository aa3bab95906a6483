"""Label arrays -> files in the formats that people label in; used by programs that know labels."""

import json
from pathlib import Path

import numpy as np
from PIL import Image

from checkpoints import write_classes, write_text
from training.labels.labelled_set import LabelledSet


def write_labels(folder: Path, labels: LabelledSet) -> None:
    """Writes masks/, classes.toml, keypoints.json and depth/ for the kinds of labels present."""
    if labels.masks is not None and labels.classes is not None:
        (folder / "masks").mkdir(parents=True, exist_ok=True)
        for stem, mask in zip(labels.stems, labels.masks, strict=True):
            Image.fromarray(mask).save(folder / "masks" / f"{stem}.png")
        write_classes(folder / "classes.toml", labels.classes)
    if labels.keypoints is not None:
        write_text(
            folder / "keypoints.json", json.dumps(_coco_from_labels(labels), indent=1) + "\n"
        )
    if labels.depth is not None:
        (folder / "depth").mkdir(parents=True, exist_ok=True)
        write_text(folder / "depth" / "depth.toml", f"unit = {json.dumps(labels.depth_unit)}\n")
        for stem, depth in zip(labels.stems, labels.depth, strict=True):
            np.save(folder / "depth" / f"{stem}.npy", depth)


def _coco_from_labels(labels: LabelledSet) -> dict[str, object]:
    """One annotation per image with keypoints; COCO puts pixel centers at whole numbers."""
    assert labels.keypoints is not None  # the caller checks
    annotated = [i for i, points in enumerate(labels.keypoints) if not np.isnan(points).any()]
    size = {"height": labels.crop.height, "width": labels.crop.width}
    return {
        "images": [
            {"id": i, "file_name": f"{stem}.png", **size} for i, stem in enumerate(labels.stems)
        ],
        "categories": [
            {
                "id": 1,
                "name": "object",
                "keypoints": list(labels.keypoint_names),
                "skeleton": [[a + 1, b + 1] for a, b in labels.skeleton],  # COCO counts from 1
            }
        ],
        "annotations": [
            {
                "id": i + 1,
                "image_id": i,
                "category_id": 1,
                "num_keypoints": int((labels.keypoints[i, :, 2] > 0).sum()),
                "keypoints": [
                    value
                    for x, y, visible in labels.keypoints[i].tolist()
                    for value in ((x - 0.5, y - 0.5, 2) if visible > 0 else (0, 0, 0))
                ],
            }
            for i in annotated
        ],
    }
