"""COCO: one file with a run-length mask of each class, and the keypoints.

CVAT, Roboflow and Label Studio's converter read it. Pixels are as in the masks.
"""

import json
from pathlib import Path
from typing import Any

import numpy as np
from pycocotools import mask as coco_mask

from training.labels.label_folder import LabelFolder, coco_row


def write_coco(path: Path, labels: LabelFolder, masks: bool = True, keypoints: bool = True) -> None:
    """Writes one file of masks, keypoints or both. Raises OSError."""
    names = [name for name, _ in labels.labels()] if masks else []
    if masks and any(
        name == "__ignore__" for stem in labels.stems for name, _ in labels.regions(stem)
    ):
        names.append("__ignore__")
    categories: list[dict[str, Any]] = [
        {"id": i, "name": name, "supercategory": ""} for i, name in enumerate(names, 1)
    ]
    if keypoints and labels.keypoint_names:
        categories.append(
            {
                "id": len(names) + 1,
                "name": "object",
                "supercategory": "",
                "keypoints": list(labels.keypoint_names),
                "skeleton": [[a + 1, b + 1] for a, b in labels.skeleton],
            }
        )
    images, annotations = [], list[dict[str, Any]]()
    for number, stem in enumerate(labels.stems, 1):
        sizes = labels.pictures.sizes[stem]
        images.append(
            {
                "id": number,
                "file_name": labels.pictures.files[stem],
                "height": sizes.height,
                "width": sizes.width,
            }
        )
        for name, region in labels.regions(stem) if masks else ():
            encoded = coco_mask.encode(np.asfortranarray(region.astype(np.uint8)))
            counts = encoded["counts"]
            text = counts.decode() if isinstance(counts, bytes) else counts
            annotations.append(
                {
                    "id": len(annotations) + 1,
                    "image_id": number,
                    "category_id": names.index(name) + 1,
                    "segmentation": {"size": [sizes.height, sizes.width], "counts": text},
                    "area": int(region.sum()),
                    "bbox": coco_mask.toBbox(encoded).tolist(),
                    "iscrowd": 0,
                }
            )
        if keypoints and stem in labels.points:
            points = labels.points[stem]
            visible = points[points[:, 2] > 0, :2]
            low, high = (visible.min(0), visible.max(0)) if len(visible) else (points[0, :2],) * 2
            annotations.append(
                {
                    "id": len(annotations) + 1,
                    "image_id": number,
                    "category_id": len(names) + 1,
                    "keypoints": coco_row(points),
                    "num_keypoints": len(visible),
                    "bbox": [*low.tolist(), *(high - low).tolist()],
                    "area": float(np.prod(high - low)),
                    "iscrowd": 0,
                }
            )
    content = {"images": images, "annotations": annotations, "categories": categories}
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content), "utf-8")
